"""Adam, and what makes its steps fast on so small a network."""

from contextlib import contextmanager

import torch
from torch.optim.adam import adam


class Adam:
    """Adam (D. Kingma and J. Ba, 2015), with the arithmetic of torch.optim.Adam(fused=True).

    That class spends more time in Python than in arithmetic on so small a network, and its first
    use imports the compiler of torch.compile, which takes half as long again as `import torch`.
    """

    def __init__(self, model, beta1, beta2):
        self.names, self.parameters = zip(*model.named_parameters(), strict=True)
        self.betas = {"beta1": beta1, "beta2": beta2}
        self.state = {
            "step": [torch.zeros((), device=p.device) for p in self.parameters],
            "exp_avg": [torch.zeros_like(p) for p in self.parameters],
            "exp_avg_sq": [torch.zeros_like(p) for p in self.parameters],
        }

    def tensors(self):
        """What it knows of each parameter, as (name, tensor): ("layers.1.weight.exp_avg", ...)."""
        for key, tensors in self.state.items():
            for name, tensor in zip(self.names, tensors, strict=True):
                yield f"{name}.{key}", tensor

    def zero_grad(self):
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, learning_rate):
        adam(
            self.parameters,
            [parameter.grad for parameter in self.parameters],
            self.state["exp_avg"],
            self.state["exp_avg_sq"],
            max_exp_avg_sqs=[],
            state_steps=self.state["step"],
            fused=True,
            amsgrad=False,
            lr=learning_rate,
            weight_decay=0,
            eps=1e-8,
            maximize=False,
            **self.betas,
        )


def multiplies_bfloat16():
    """Whether the CPU multiplies bfloat16 itself, as far as this version of PyTorch can tell."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    known = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return known and torch.backends.mkldnn.is_available()  # which has the products


@contextmanager
def fast_products():
    """Let matrix products take a faster way, which may be less precise, where there is one.

    It is TensorFloat-32 on a GPU, bfloat16 on CPUs that multiply it, which takes half the time, and
    full precision by another library on the others. Logits and gradients tolerate it; weights,
    distortions and evaluation keep full precision. Backward belongs inside, for TensorFloat-32.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16()):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def keep_freed_memory():
    """Let glibc keep the memory that a step frees, for the next one.

    It hands freed blocks back to the kernel, and the next step pays a tenth of its time to get them
    again. Once it has freed a block of this size, it keeps what is smaller.
    """
    torch.empty(2**24, dtype=torch.uint8)
