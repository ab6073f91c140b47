"""What a LLaVA is made of: the sizes of its LLaMA, of the CLIP whose image tower it sees with, and what joins them."""

from dataclasses import dataclass

from lpi_jax.models.clip import CLIPConfig

PROJECTORS = ("linear", "mlp2x_gelu")


@dataclass(frozen=True)
class LlamaConfig:
    """A LLaMA decoder.

    Attributes:
      width: D of the residual stream. heads, kv_heads: of the queries, and of the keys and values that they share.
      mlp_dim: hidden units of the gated MLP.
      rope_theta: base of the rotary angles; position t turns pair i of a head by t * rope_theta^(-2i / head_dim).
      tied: the output matrix is the table of embeddings.
    """

    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    mlp_dim: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 1e4
    tied: bool = False

    def __post_init__(self):
        sizes = (self.vocab_size, self.width, self.layers, self.heads, self.kv_heads, self.mlp_dim)
        if min(sizes) < 1 or self.width % (2 * self.heads) or self.heads % self.kv_heads:
            raise ValueError(
                f"a LLaMA needs positive sizes, heads of an even width, and key heads that divide the heads; got {self}"
            )

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.width // self.heads


@dataclass(frozen=True)
class LlavaConfig:
    """The whole model.

    Attributes:
      clip: both towers; the text tower only encodes questions, for guidance.
      projector: from patches to the LLaMA's inputs: "linear", or "mlp2x_gelu", two layers with an exact GELU between.
      feature_layer: whose patches the LLaMA sees, counted as in Hugging Face's hidden_states: -1 is the last block.
      bos, eos, pad: token ids of the LLaMA.
      words: how many ids, from the first, are of words and not of what was added to them; 0: all.
      max_length: most positions of a spliced sequence; what is behind them is cut off.
      text_projection: whether there is one, for `encode_question(projected=True)`.
    """

    clip: CLIPConfig
    llama: LlamaConfig
    projector: str = "mlp2x_gelu"
    feature_layer: int = -2
    bos: int = 1
    eos: int = 2
    pad: int = 0
    max_length: int = 2048
    words: int = 0
    text_projection: bool = True

    def __post_init__(self):
        if self.projector not in PROJECTORS:
            raise ValueError(f"projector {self.projector!r} is unknown; expected one of {list(PROJECTORS)}")
        states = 1 + self.clip.vision.layers
        if not -states <= self.feature_layer < states:
            raise ValueError(f"feature_layer {self.feature_layer} is none of the {states} hidden states of the tower")
        for name in ("bos", "eos", "pad"):
            if not 0 <= getattr(self, name) < self.llama.vocab_size:
                raise ValueError(f"{name} {getattr(self, name)} is no id of {self.llama.vocab_size}")
        if self.max_length < 1:
            raise ValueError(f"max_length must be positive, not {self.max_length}")

    @property
    def hidden_layer(self) -> int:
        """`feature_layer` as the number of blocks before it."""
        return self.feature_layer % (1 + self.clip.vision.layers)
