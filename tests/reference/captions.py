"""Cleaning of a caption before tokenising (section 4)."""

DROPPED = (",", ".", "'", "!", "?", '"', "(", ")", "*", "#", ":", ";", "~")
SPACED = ("-", "/")


def clean(text, max_words=30):
    """Lower case; drop , . ' ! ? " ( ) * # : ; ~ ; "-" and "/" to spaces; single spaces; 30 words; a full stop.

    Args:
      text: the caption as written.
      max_words: how many words stay.

    Returns:
      The cleaned caption. Raises ValueError where no word is left.
    """
    text = text.lower()
    for character in DROPPED:
        text = text.replace(character, "")
    for character in SPACED:
        text = text.replace(character, " ")
    words = text.split()  # at whitespace of any kind
    if not words:
        raise ValueError(f"the caption {text!r} is empty, expected at least one word")
    return " ".join(words[:max_words]) + "."
