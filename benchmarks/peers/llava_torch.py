"""What a PyTorch user does: LLaVA of `transformers` under soft prompts behind its first token, trained and decoded.

Command:  python benchmarks/peers/llava_torch.py DIR   (started by benchmarks/llava_step.py, which writes DIR)

Works as it is told, a line of JSON from standard input at a time, [name, arguments ...], and answers with another. The
weights are frozen and what has no gradient is computed without; where prompts and visual tokens come in the sequence is
known before the clock runs, as from a processor. Attention is what `transformers` chooses, PyTorch's own (`sdpa`).
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))
from beside import serve

IMAGE, IGNORE, PROMPT, PAD = -200, -100, -1, 0


class Peer:
    """The model with its work.

    Args:
      folder: of Hugging Face's form, with `clip` inside it; work.npz, arrays as benchmarks/llava_step.py writes them;
        settings.json: threads, cuda (whether to use it), sets K, lr, clip_norm, new.
    """

    def __init__(self, folder: Path) -> None:
        self._settings = json.loads((folder / "settings.json").read_text())
        torch.set_num_threads(self._settings["threads"])
        torch.backends.cudnn.allow_tf32 = False  # float32 as on the other side
        use_cuda = self._settings["cuda"] and torch.cuda.is_available()
        self._device = torch.device("cuda" if use_cuda else "cpu")
        self._llava = self._frozen(transformers.LlavaForConditionalGeneration, folder)
        self._clip = self._frozen(transformers.CLIPModel, folder / "clip")
        with np.load(folder / "work.npz") as file:
            self._work = {name: self._placed(value) for name, value in file.items()}
        self._work["pixels"] = self._work["images"].permute(0, 3, 1, 2).contiguous()
        self._sequences = {name: self._sequence(name) for name in ("guided", "alone", "ask")}
        self._tuned: dict[str, tuple[dict[str, Tensor], torch.optim.Optimizer]] = {}

    def device(self) -> str:
        """What it computes on."""
        return self._device.type

    # ---- training ----------------------------------------------------------------------------------------------------

    def first(self, case: str) -> dict[str, Any]:
        """Loss of the first step, and the clipped gradient [P, D] of the prompts, from AdamW's first moment."""
        own = {name: self._work[f"own/{name}"].clone() for name in self._names(case)}
        for leaf in own.values():
            leaf.requires_grad_()
        optimizer = torch.optim.AdamW(own.values(), lr=self._settings["lr"], weight_decay=0.0)
        self._tuned[case] = own, optimizer
        loss = self._step(case)
        gradient = optimizer.state[own["prompts"]]["exp_avg"] / (1 - optimizer.defaults["betas"][0])
        return {"loss": float(loss), "gradient": gradient.tolist()}

    def train(self, case: str, steps: int) -> float:
        """Seconds of one step, the mean of so many behind one that does not count."""
        float(self._step(case))
        began = time.perf_counter()
        for _ in range(steps):
            loss = self._step(case)
        float(loss)  # waits for the device
        return (time.perf_counter() - began) / steps

    def _names(self, case: str) -> list[str]:
        names = [name.removeprefix("own/") for name in self._work if name.startswith("own/")]
        return names if case == "guided" else ["prompts"]

    def _step(self, case: str) -> Tensor:
        own, optimizer = self._tuned[case]
        guided, work = case == "guided", self._work
        with torch.no_grad():
            visual, image = self._see()
        prompts = own["prompts"].expand(len(visual), -1, -1)
        if guided:
            with torch.no_grad():
                text = self._clip.text_model(work["question_ids"]).pooler_output
                finished = self._chosen(image, text)
            prompts = torch.cat([finished, prompts], 1)
        embeds, mask, labels = self._spliced(case, prompts, visual)
        loss = self._llava(inputs_embeds=embeds, attention_mask=mask, labels=labels, use_cache=False).loss
        if guided:
            loss = loss + self._alignment(own, image, text)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(own.values(), self._settings["clip_norm"])
        optimizer.step()
        return loss.detach()

    def _see(self) -> tuple[Tensor, Tensor]:
        """Visual tokens [B, N, D] and image features [B, C], of one pass of the tower."""
        model = self._llava.model
        seen = model.vision_tower(self._work["pixels"], output_hidden_states=True)
        patches = seen.hidden_states[self._llava.config.vision_feature_layer][:, 1:]
        return model.multi_modal_projector(patches), self._clip.visual_projection(seen.pooler_output)

    def _chosen(self, image: Tensor, text: Tensor) -> Tensor:
        """[B, (K - 1) P, D]: prompts of the finished tasks that fit best, the best last."""
        prototypes = functional.normalize(self._work["prototypes"])
        scores = (functional.normalize(image) + functional.normalize(text)) @ prototypes.T / 2
        best = scores.topk(self._settings["sets"] - 1).indices.flip(1)
        return self._work["finished"][best].flatten(1, 2)

    @staticmethod
    def _alignment(own: dict[str, Tensor], image: Tensor, text: Tensor) -> Tensor:
        hidden = functional.silu(own["prompts"] @ own["transform/hidden/kernel"] + own["transform/hidden/bias"])
        prototype = (hidden @ own["transform/out/kernel"] + own["transform/out/bias"]).mean(0, keepdim=True)
        to_image, to_text = (functional.cosine_similarity(rows, prototype).mean() for rows in (image, text))
        return 2 - to_image - to_text

    # ---- decoding ----------------------------------------------------------------------------------------------------

    def answers(self) -> list[list[int]]:
        """Ids [B, new] that are generated."""
        with torch.no_grad():
            visual, _ = self._see()
            embeds, mask, _ = self._spliced("ask", self._work["shown"], visual)
        new = self._settings["new"]
        return self._llava.generate(
            inputs_embeds=embeds, attention_mask=mask, max_new_tokens=new, do_sample=False, pad_token_id=PAD
        ).tolist()

    def decode(self) -> float:
        """Seconds of answering the batch."""
        began = time.perf_counter()
        self.answers()
        return time.perf_counter() - began

    # ---- what both need ----------------------------------------------------------------------------------------------

    def _frozen(self, kind: type, folder: Path) -> Any:
        return kind.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False).to(self._device)

    def _placed(self, value: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(value)
        return (tensor if tensor.is_floating_point() else tensor.long()).to(self._device)

    def _sequence(self, name: str) -> tuple[Tensor, Tensor]:
        """Ids [B, L] with PROMPT and IMAGE wherever one comes, and labels [B, L]."""
        tokens, length = (self._work[f"{'ask' if name == 'ask' else 'train'}/{part}"] for part in ("tokens", "length"))
        prompts = self._work["own/prompts" if name == "alone" else "shown"].shape[-2]
        visual = (self._llava.config.vision_config.image_size // self._llava.config.vision_config.patch_size) ** 2
        rows = [row[:, :count].cpu().numpy() for row, count in zip(tokens, length, strict=True)]
        both = pad([expand(row, prompts, visual) for row in rows], left=name == "ask")
        return self._placed(both[0]), self._placed(both[1])

    def _spliced(self, name: str, prompts: Tensor, visual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The sequence: embeds [B, L, D], mask [B, L] and labels [B, L]; prompts [B, M, D], visual tokens [B, N, D]."""
        ids, labels = self._sequences[name]
        embeds = self._llava.get_input_embeddings()(ids.clamp(min=PAD))
        embeds = embeds.masked_scatter((ids == IMAGE)[..., None], visual)
        embeds = embeds.masked_scatter((ids == PROMPT)[..., None], prompts)
        return embeds, (ids != PAD).long(), labels


def expand(row: np.ndarray, prompts: int, visual: int) -> np.ndarray:
    """[2, n], ids over labels -> [2, l]: the prompts behind the first, and a place for each visual token."""
    row = np.repeat(row, np.where(row[0] == IMAGE, visual, 1), axis=1)
    behind = np.repeat([[PROMPT], [IGNORE]], prompts, axis=1)
    return np.concatenate([row[:, :1], behind, row[:, 1:]], axis=1)


def pad(rows: list[np.ndarray], left: bool) -> np.ndarray:
    """B rows [2, l] -> [2, B, L], ids and labels."""
    longest = max(row.shape[1] for row in rows)
    both = np.empty((2, len(rows), longest), np.int32)
    both[0], both[1] = PAD, IGNORE
    for number, row in enumerate(rows):
        both[:, number, slice(longest - row.shape[1], None) if left else slice(row.shape[1])] = row
    return both


def main() -> None:
    """Answers until there is nothing more to read."""
    transformers.utils.logging.disable_progress_bar()
    serve(lambda: Peer(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
