"""The kernels that reuse adds, over sizes; and a reference benchmark that knows nothing of this project."""

from __future__ import annotations

import torch

from dqar.core.entropy import entropy_from_qk
from dqar.core.quantization import KVQuantizer

HEADS, WIDTH = 6, 32


class Entropy:
    """Attention entropy from q and k of two images of `tokens`, guided, at every `stride`-th row."""

    params = ([64, 256], [1, 15])
    param_names = ("tokens", "stride")
    number, rounds, repeat = 20, 1, (10, 30, 2.0)

    def setup(self, tokens: int, stride: int) -> None:
        """Queries and keys as the processors have them: a view of `[batch, tokens, heads * width]`."""
        torch.set_num_threads(1)
        shape = (4, tokens, HEADS, WIDTH)
        self.query, self.key = (torch.randn(shape).transpose(1, 2) for _ in range(2))

    @torch.no_grad()
    def time_entropy(self, tokens: int, stride: int) -> None:
        """Seconds of one layer."""
        entropy_from_qk(self.query, self.key, WIDTH**-0.5, stride)


class Quantizer:
    """Round trip of one layer's attention output of `tokens`, at so many `bits` with scales by `mode`."""

    params = ([64, 256], [4, 8], ["per_tensor", "per_channel", "per_head"])
    param_names = ("tokens", "bits", "mode")
    number, rounds, repeat = 20, 1, (10, 30, 2.0)

    def setup(self, tokens: int, bits: int, mode: str) -> None:
        """An output, and what is kept of it."""
        torch.set_num_threads(1)
        self.quantizer = KVQuantizer(mode, bits, HEADS)
        self.output = torch.randn(4, tokens, HEADS * WIDTH)
        self.kept = self.quantizer.quantize(self.output)

    def time_quantize(self, tokens: int, bits: int, mode: str) -> None:
        """Seconds to keep it."""
        self.quantizer.quantize(self.output)

    def time_dequantize(self, tokens: int, bits: int, mode: str) -> None:
        """Seconds to read it back."""
        self.quantizer.dequantize(self.kept)


class Reference:
    """torch alone: how fast the machine is today, by which the gate divides all other times."""

    number, rounds, repeat = 5, 1, (10, 30, 3.0)

    def setup(self) -> None:
        """A transformer's feed-forward block."""
        torch.set_num_threads(1)
        self.x, self.up, self.down = torch.randn(256, 192), torch.randn(192, 768), torch.randn(768, 192)

    def time_feed_forward(self) -> None:
        """Seconds of it."""
        for _ in range(8):
            torch.nn.functional.gelu(self.x @ self.up) @ self.down
