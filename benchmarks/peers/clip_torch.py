"""What a PyTorch user does: CLIP of `transformers` whose low-rank prompts enter by hooks, trained by SGD.

Command:  python benchmarks/peers/clip_torch.py DIR   (started by benchmarks/train_step.py, which writes DIR)

Works as it is told, a line of JSON from standard input at a time, [name, arguments ...], and answers with another. The
backbone is frozen; pixels are normalised before the clock runs. Attention is what `transformers` chooses, PyTorch's
own.
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


class Peer:
    """The model with its work.

    Args:
      folder: of Hugging Face's form; work.npz and settings.json as benchmarks/train_step.py writes them.
    """

    def __init__(self, folder: Path) -> None:
        self._settings = json.loads((folder / "settings.json").read_text())
        torch.set_num_threads(self._settings["threads"])
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        clip = transformers.CLIPModel.from_pretrained(folder, dtype=torch.float32)
        self._clip = clip.eval().requires_grad_(False).to(self._device)
        with np.load(folder / "work.npz") as file:
            work = {name: torch.from_numpy(value).to(self._device) for name, value in file.items()}
        self._pixels, self._ids = work["pixels"], work["ids"].long()
        self._factors = {
            name.removeprefix("factor/"): leaf.requires_grad_()
            for name, leaf in work.items()
            if name.startswith("factor/")
        }
        self._optimizer = torch.optim.SGD(self._factors.values(), lr=self._settings["lr"])
        self._prompts: dict[str, Tensor] = {}
        self._hook()
        self._forward = torch.compile(self._loss) if self._settings["compile"] else self._loss

    def device(self) -> str:
        """What it computes on."""
        return self._device.type

    def first(self) -> dict[str, Any]:
        """Loss of the first step, and the gradient of every factor."""
        loss = self._step()
        return {"loss": float(loss), "gradient": {name: leaf.grad.tolist() for name, leaf in self._factors.items()}}

    def train(self, steps: int) -> float:
        """Seconds of one step, the mean of so many behind one that does not count."""
        float(self._step())
        began = time.perf_counter()
        for _ in range(steps):
            loss = self._step()
        float(loss)  # waits for the device
        return (time.perf_counter() - began) / steps

    def _step(self) -> Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._settings["dtype"] == "bfloat16"):
            loss = self._forward()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def _loss(self) -> Tensor:
        factors = self._factors
        for site in ("visual", "textual"):
            parts = factors["layer"], factors[f"token_{site}"], factors[f"width_{site}"]
            self._prompts[site] = torch.einsum("lr,pr,dr->lpd", *parts) / factors["layer"].shape[1]
        found = self._clip(input_ids=self._ids, pixel_values=self._pixels)
        logits = self._settings["scale"] * found.image_embeds.float() @ found.text_embeds.float().T
        right = torch.arange(len(logits), device=self._device)
        return (functional.cross_entropy(logits, right) + functional.cross_entropy(logits.T, right)) / 2

    # ---- prompts -----------------------------------------------------------------------------------------------------

    def _hook(self) -> None:
        """Row 0 behind the class token and in place of the captions' placeholders, row l before block l."""
        vision, text = self._clip.vision_model, self._clip.text_model
        vision.embeddings.register_forward_hook(lambda _, __, x: self._inserted(x))
        text.embeddings.token_embedding.register_forward_hook(lambda _, __, x: self._replaced(x))
        for site, tower in (("visual", vision), ("textual", text)):
            for index, layer in enumerate(tower.encoder.layers[: self._settings["depth"]]):
                if index:
                    layer.register_forward_pre_hook(self._adding(site, index))

    def _inserted(self, x: Tensor) -> Tensor:
        rows = self._prompts["visual"][0].expand(len(x), -1, -1)
        return torch.cat([x[:, :1], rows, x[:, 1:]], 1)

    def _replaced(self, x: Tensor) -> Tensor:
        rows = self._prompts["textual"][0].expand(len(x), -1, -1)
        return torch.cat([x[:, :1], rows, x[:, 1 + rows.shape[1] :]], 1)

    def _adding(self, site: str, index: int) -> Any:
        def added(_: Any, given: tuple) -> tuple:
            x, *rest = given
            rows = functional.pad(self._prompts[site][index], (0, 0, 1, x.shape[1] - 1 - self._settings["length"]))
            return (x + rows.to(x.dtype), *rest)

        return added


def main() -> None:
    """Answers until there is nothing more to read."""
    transformers.utils.logging.disable_progress_bar()
    serve(lambda: Peer(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
