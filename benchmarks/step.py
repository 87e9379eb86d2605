"""One joint update three ways, on the same examples: a starter-style loop, the best plain Hugging Face one, and ours.

    python benchmarks/step.py [--data FOLDER] [--encoder NAME] [--threads N] [--rounds N] [--learn N] [--json FILE]
                              [--markdown FILE] [--where FILE]

(a) transformers.BertModel in float32, sentences tokenised in the collate function and padded, an AdamW written in
Python as the starter's. (b) the same model under bfloat16 autocast with the faster of its attention kernels, PyTorch's
fused AdamW, tokens prepared once, batches of like length. (c) this repository's training step.

All three see the same examples in the same batches, dropout 0.1 and one update on the sum of three losses. They take
turns round by round, so that a busy machine slows all of them; ratios are taken within a round. `--learn N` also trains
each for N updates from the same start and compares their losses; `--where` writes a table of where our update's time
goes, with what it would take if all matrix products ran at the measured peak.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from common.data.encoding import Layout, encode, epoch_batches, input_limit, load_tokenizer
from common.data.sources import Corpus, load
from common.declare.spec import EncoderSpec, OptimizerSpec, RunSpec, ScheduleSpec, TaskSpec
from common.model.bert import BertModel
from common.model.heads import MultitaskModel
from common.model.weights import resolve_encoder
from common.runs.pool import become_worker
from common.seeding import stateless_generator
from common.training import evaluate
from common.training.loop import environment
from common.training.step import Trainer

BATCH = 16
LR = 1e-4
TASKS = (
    TaskSpec("sst", pooling="cls"),
    TaskSpec("para", "pair", "cls", loss="bce"),
    TaskSpec("sts", "pair", "cls", loss="mse"),
)
OUT_SIZES = {"sst": 5, "para": 1, "sts": 1}
LEARNERS = ("a starter-style, fp32", "b Hugging Face, bf16, eager", "c ours, bf16")
# Kinds of work in an update by the names of torch's operations, and what each is.
KINDS = {
    "matrix products of linear layers": ("mm", "addmm"),
    "matrix products of attention": ("bmm", "baddbmm"),
    "casts and copies": ("copy_", "_to_copy", "cat", "index_select", "index_copy", "index_copy_", "empty_strided"),
    "optimiser": ("_fused_adamw_",),
    "GELU": ("gelu", "gelu_backward"),
    "norms": ("native_layer_norm", "native_layer_norm_backward"),
    "softmax": ("_softmax", "_softmax_backward_data"),
    "sums, products, fills": ("add", "add_", "mul", "mul_", "sum", "fill_", "zero_"),
    "inner products of gradients": ("dot",),
}
REST = "dropout masks, Python, other operations"
Rows = dict[str, np.ndarray]


class StarterAdamW(torch.optim.Optimizer):
    """The starter's optimiser: a loop over parameters, several passes over memory for each."""

    def __init__(self, parameters: Iterator[nn.Parameter], lr: float):
        super().__init__(parameters, {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-6})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            (beta1, beta2), eps = group["betas"], group["eps"]
            for parameter in (p for p in group["params"] if p.grad is not None):
                state = self.state[parameter]
                if not state:
                    state.update(step=0, m=torch.zeros_like(parameter), v=torch.zeros_like(parameter))
                state["step"] += 1
                state["m"].mul_(beta1).add_(parameter.grad, alpha=1 - beta1)
                state["v"].mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1 - beta2)
                size = group["lr"] * math.sqrt(1 - beta2 ** state["step"]) / (1 - beta1 ** state["step"])
                parameter.addcdiv_(state["m"], state["v"].sqrt().add_(eps), value=-size)


def task_loss(task: str, logits: Tensor, labels: Tensor) -> Tensor:
    if task == "sst":
        return functional.cross_entropy(logits, labels.long())
    if task == "para":
        return functional.binary_cross_entropy_with_logits(logits[:, 0], labels)
    return functional.mse_loss(logits[:, 0], labels)


class HuggingFace:
    """What (a) and (b) share: the library's BERT, one linear head per task on the first token, one joint update."""

    def __init__(self, folder: Path, attention: str, use_bf16: bool, optimizer: Callable):
        self.model = transformers.BertModel.from_pretrained(
            folder, attn_implementation=attention, add_pooling_layer=False, dtype=torch.float32
        )
        self.heads = nn.ModuleDict({t: nn.Linear(self.model.config.hidden_size, n) for t, n in OUT_SIZES.items()})
        set_heads({t: self.heads[t] for t in OUT_SIZES})
        self.use_bf16 = use_bf16
        self.optimizer = optimizer([*self.model.parameters(), *self.heads.parameters()])

    def inputs(self, task: str, rows: np.ndarray) -> tuple[dict[str, Tensor], Tensor]:
        raise NotImplementedError

    def outputs(self, task: str, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        inputs, labels = self.inputs(task, rows)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.use_bf16):
            hidden = self.model(**inputs).last_hidden_state[:, 0]
        return self.heads[task](hidden.float()), labels

    def update(self, rows: Rows) -> float:
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        total = sum(task_loss(task, *self.outputs(task, chosen)) for task, chosen in rows.items())
        total.backward()
        self.optimizer.step()
        return total.item()


class Starter(HuggingFace):
    """(a) float32, tokenised and padded in the collate function, an AdamW in Python."""

    def __init__(self, folder: Path, corpus: Corpus):
        super().__init__(folder, "eager", False, lambda parameters: StarterAdamW(parameters, LR))
        tokenizer = load_tokenizer(folder, 512)
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]")
        self.train = {task: corpus[task]["train"] for task in OUT_SIZES}

    def inputs(self, task: str, rows: np.ndarray) -> tuple[dict[str, Tensor], Tensor]:
        split = self.train[task]
        columns = [[column[i] for i in rows] for column in split.texts]
        inputs = self.tokenizer(*columns, padding=True, truncation=True, return_tensors="pt")
        return dict(inputs), torch.from_numpy(split.labels[rows].astype(np.float32))


class BestPlain(HuggingFace):
    """(b) bfloat16 autocast, fused AdamW, tokens prepared once."""

    def __init__(self, folder: Path, encoded: dict, attention: str):
        super().__init__(
            folder, attention, True, lambda p: torch.optim.AdamW(p, LR, eps=1e-6, weight_decay=0, fused=True)
        )
        self.encoded = encoded

    def inputs(self, task: str, rows: np.ndarray) -> tuple[dict[str, Tensor], Tensor]:
        batch = self.encoded[task].batch(rows)
        names = ("input_ids", "attention_mask", "token_type_ids")
        return dict(zip(names, batch.inputs[0], strict=True)), batch.labels


class Ours:
    """(c) this repository's model and training step."""

    def __init__(self, folder: Path, encoded: dict, precision: str = "bf16", engine: str = "fast"):
        optimizer = OptimizerSpec(lr=LR, eps=1e-6, variant="torch")
        self.spec = RunSpec(
            TASKS, EncoderSpec(), ScheduleSpec("joint"), optimizer, BATCH, precision=precision, engine=engine
        )
        self.model = MultitaskModel(BertModel.from_pretrained(folder), self.spec, stateless_generator(0))
        set_heads({task: self.model.heads[task].out for task in OUT_SIZES})
        self.trainer = Trainer(self.model, self.spec, updates=10**6)
        self.encoded = encoded

    def update(self, rows: Rows) -> float:
        seen = self.trainer.update([(task, self.encoded[task].batch(chosen)) for task, chosen in rows.items()])
        return sum(loss for _, loss in seen.losses)


def set_heads(heads: dict[str, nn.Linear]) -> None:
    """The same start for every contestant's heads."""
    for task, head in heads.items():
        generator = stateless_generator("head", task)
        nn.init.normal_(head.weight, std=0.02, generator=generator)
        nn.init.zeros_(head.bias)


def batches(encoded: dict, seed: int) -> Iterator[Rows]:
    """Endless joint groups of 16 examples a task, of like length within a task."""
    epoch = 0
    while True:
        epoch += 1
        orders = [epoch_batches(e.lengths, len(e), BATCH, (seed, epoch, task)) for task, e in encoded.items()]
        for chosen in zip(*orders, strict=False):
            if all(len(rows) == BATCH for rows in chosen):
                yield dict(zip(encoded, chosen, strict=True))


def peak_flops(dtype: torch.dtype, size: int = 2048, repeats: int = 12) -> float:
    """FLOP/s of a square matrix product on this machine now: the best of several."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - started)
    return 2 * size**3 / min(times)


def memory_peak(work: Callable[[], None]) -> int:
    """Bytes that the process grew by at most while working (Linux: the kernel's high-water mark)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # else what others freed is used again, and does not count
    Path("/proc/self/clear_refs").write_text("5")  # resets the mark
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


class Field:
    """The contestants with the data they share."""

    def __init__(self, folder: Path, corpus: Corpus):
        config = json.loads((folder / "config.json").read_text())
        self.folder, self.corpus = folder, corpus
        tokenizer = load_tokenizer(folder, input_limit(config["max_position_embeddings"]))
        self.encoded = {t.name: encode(corpus[t.name]["train"], tokenizer, Layout.of(t)) for t in TASKS}
        self.dev = {t.name: encode(corpus[t.name]["dev"], tokenizer, Layout.of(t)) for t in TASKS}

    def make(self, names: Sequence[str] | None = None) -> dict[str, HuggingFace | Ours]:
        """Fresh contestants of those names (None: all), from one start."""
        makers = {
            "a starter-style, fp32": lambda: Starter(self.folder, self.corpus),
            "b Hugging Face, bf16, eager": lambda: BestPlain(self.folder, self.encoded, "eager"),
            "b Hugging Face, bf16, sdpa": lambda: BestPlain(self.folder, self.encoded, "sdpa"),
            "c ours, bf16": lambda: Ours(self.folder, self.encoded),
            "c ours, fp32": lambda: Ours(self.folder, self.encoded, "fp32"),
            "c ours, bf16, plain engine": lambda: Ours(self.folder, self.encoded, engine="plain"),
        }
        return {name: makers[name]() for name in (names or makers)}


def matmul_flops(model: nn.Module, tokens: int) -> float:
    """Forward and backward of the linear layers on real tokens: six operations per weight and token."""
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    return 6.0 * weights * tokens


def measure(field: Field, rounds: int, updates: int = 4) -> dict:
    """Seconds per update of every contestant, round by round, on the same groups."""
    contestants, stream = field.make(), batches(field.encoded, 0)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    tokens, peaks = [], {torch.float32: [], torch.bfloat16: []}
    for number in range(-1, rounds):  # the first round warms up
        groups = [next(stream) for _ in range(updates)]
        for name, contestant in contestants.items():
            started = time.perf_counter()
            for group in groups:
                contestant.update(group)
            if number >= 0:
                times[name].append((time.perf_counter() - started) / updates)
        if number >= 0:
            tokens.append(
                sum(int(field.encoded[t].lengths[rows].sum()) for g in groups for t, rows in g.items()) / updates
            )
            for dtype, found in peaks.items():
                found.append(peak_flops(dtype))
        print(f"round {number + 1} of {rounds}", flush=True)
    group = next(stream)
    memory = {name: memory_peak(lambda c=c: c.update(group)) for name, c in contestants.items()}
    encoder = contestants["c ours, bf16"].model.encoder
    peak = {str(dtype).removeprefix("torch."): statistics.median(found) for dtype, found in peaks.items()}
    return {"seconds": times, "tokens": tokens, "peak": peak, "memory": memory, "flops": matmul_flops(encoder, 1)}


def seconds_by_kind(work: Callable[[], None]) -> dict[str, float]:
    """Wall seconds of some work per kind; dropout masks and Python are what no operation accounts for."""
    started = time.perf_counter()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        work()
    wall = time.perf_counter() - started
    seconds = {e.key.removeprefix("aten::"): e.self_cpu_time_total / 1e6 for e in profiler.key_averages()}
    found = {kind: sum(seconds.get(name, 0.0) for name in names) for kind, names in KINDS.items()}
    return found | {REST: wall - sum(found.values())}


def where(field: Field, found: dict, updates: int = 8) -> dict[str, float]:
    """Share of our update's wall time per kind of work it has."""
    ours, stream = field.make(["c ours, bf16"])["c ours, bf16"], batches(field.encoded, 2)
    groups = [next(stream) for _ in range(2 * updates)]
    for group in groups[:updates]:
        ours.update(group)
    seconds = seconds_by_kind(lambda: [ours.update(group) for group in groups[updates:]])
    wall = sum(seconds.values())
    shares = {kind: taken / wall for kind, taken in seconds.items() if taken}
    tokens = sum(int(field.encoded[t].lengths[rows].sum()) for g in groups[updates:] for t, rows in g.items())
    shares["linear layers, if they ran at the peak"] = found["flops"] * tokens / found["peak"]["bfloat16"] / wall
    return shares


def where_markdown(shares: dict[str, float]) -> str:
    """The shares as a table."""
    lines = ["| Part of one of our updates, bf16 | Share of its time |", "|---|---:|"]
    return "\n".join(lines + [f"| {kind} | {share:.0%} |" for kind, share in shares.items()]) + "\n"


def learn(field: Field, updates: int) -> dict[str, list[float]]:
    """Joint loss of every contestant after each update, on the same groups from the same start."""
    curves = {}
    for name, contestant in field.make(LEARNERS).items():
        torch.manual_seed(0)
        stream = batches(field.encoded, 1)
        curves[name] = [contestant.update(next(stream)) for _ in range(updates)]
        print(f"{name}: loss over the last 50 updates {statistics.mean(curves[name][-50:]):.4f}", flush=True)
    return curves


@torch.inference_mode()
def padded_forward(model: nn.Module, field: Field, task: str, count: int) -> None:
    """Evaluation as the starter does it: float32, the order of the file, padded to the longest of 16."""
    encoded = field.dev[task]
    for start in range(0, count, BATCH):
        ids, mask, types = encoded.batch(np.arange(start, min(start + BATCH, count))).inputs[0]
        model(input_ids=ids, attention_mask=mask, token_type_ids=types)


def measure_evaluation(field: Field, rounds: int, count: int = 256) -> dict[str, list[float]]:
    """Seconds for `count` dev examples of each task: the starter's way, and ours in both precisions."""
    plain = transformers.BertModel.from_pretrained(
        field.folder, attn_implementation="eager", add_pooling_layer=False, dtype=torch.float32
    ).eval()
    ours = {p: Ours(field.folder, field.encoded, p).model for p in ("bf16", "fp32")}
    times: dict[str, list[float]] = {"padded, fp32": [], "ours, bf16": [], "ours, fp32": []}
    limit = {task: min(count, len(encoded)) for task, encoded in field.dev.items()}
    for number in range(-1, rounds):
        for name in times:
            started = time.perf_counter()
            for task, n in limit.items():
                if name.startswith("padded"):
                    padded_forward(plain, field, task, n)
                else:
                    evaluate.score(ours[name[-4:]], task, field.dev[task], np.arange(n))
            if number >= 0:
                times[name].append(time.perf_counter() - started)
    return times


def quartiles(times: dict[str, list[float]], slow: str, fast: str) -> list[float]:
    """How many times as fast, within rounds: the quartiles."""
    return statistics.quantiles([a / b for a, b in zip(times[slow], times[fast], strict=True)], n=4)


def ratio(times: dict[str, list[float]], slow: str, fast: str) -> str:
    """How many times as fast: median and middle half."""
    low, middle, high = quartiles(times, slow, fast)
    return f"{middle:.2f} x ({low:.2f} to {high:.2f})"


def report(found: dict, evaluation: dict[str, list[float]]) -> str:
    """What is printed: rates, shares of the peak, memory, and the ratios that count."""
    times, tokens = found["seconds"], statistics.median(found["tokens"])
    lines = [f"{tokens:.0f} real tokens an update; matrix product peak, GFLOP/s: " + _peaks(found)]
    lines.append(f"{'':30} {'ms':>6} {'ex/s':>6} {'tok/s':>7} {'GFLOP/s':>8} {'of peak':>8} {'MiB':>6}")
    for name, seconds in times.items():
        second = statistics.median(seconds)
        rate = found["flops"] * tokens / second
        peak = found["peak"]["bfloat16" if "bf16" in name else "float32"]
        speed = f"{1000 * second:6.0f} {3 * BATCH / second:6.0f} {tokens / second:7.0f}"
        lines.append(f"{name:30} {speed} {rate / 1e9:8.0f} {rate / peak:8.0%} {found['memory'][name] / 2**20:6.0f}")
    best = min((n for n in times if n.startswith("b ")), key=lambda n: statistics.median(times[n]))
    lines.append(f"ours over (a): {ratio(times, 'a starter-style, fp32', 'c ours, bf16')}")
    lines.append(f"ours over (b), {best}: {ratio(times, best, 'c ours, bf16')}")
    for name in ("ours, bf16", "ours, fp32"):
        lines.append(f"evaluation, {name} over padded fp32: {ratio(evaluation, 'padded, fp32', name)}")
    return "\n".join(lines)


def markdown(everything: dict) -> str:
    """The table of the README: ratios within rounds, for absolute times belong to one machine."""
    times, evaluation = everything["step"]["seconds"], everything["evaluation"]
    best = min((n for n in times if n.startswith("b ")), key=lambda n: statistics.median(times[n]))
    lines = ["| Ours, bf16, as many times as fast as | Median | Middle half |", "|---|---:|---:|"]
    pairs = [(times, name, "c ours, bf16") for name in ("a starter-style, fp32", best, "c ours, bf16, plain engine")]
    for source, slow, fast in [*pairs, (evaluation, "padded, fp32", "ours, bf16")]:
        low, middle, high = quartiles(source, slow, fast)
        name = "evaluation: padded, fp32" if source is evaluation else f"update: {slow[2:]}"
        lines.append(f"| {name} | {middle:.2f} × | {low:.2f} to {high:.2f} |")
    return "\n".join(lines) + "\n"


def _peaks(found: dict) -> str:
    return ", ".join(f"{name} {flops / 1e9:.0f}" for name, flops in found["peak"].items())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python benchmarks/step.py", description=main.__doc__)
    parser.add_argument("--encoder", default="minilm-l6", help="a known name or a folder (default: minilm-l6)")
    parser.add_argument("--data", default="embedded", help="embedded, or a CS224N data folder (default: embedded)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--rounds", type=int, default=12, help="rounds after the one that warms up (at least 2)")
    parser.add_argument("--learn", type=int, default=0, help="also compare losses over so many updates")
    parser.add_argument("--json", type=Path, help="also write everything measured here")
    parser.add_argument("--markdown", type=Path, help="also write the table of ratios here")
    parser.add_argument("--where", type=Path, help="also measure where our time goes, and write the table here")
    options = parser.parse_args(arguments)
    if options.rounds < 2:
        parser.error("--rounds must be at least 2")
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    transformers.utils.logging.disable_progress_bar()
    field = Field(resolve_encoder(options.encoder), load(options.data))
    found = measure(field, options.rounds)
    evaluation = measure_evaluation(field, max(2, options.rounds // 2))
    print(report(found, evaluation))
    curves = learn(field, options.learn) if options.learn else {}
    shares = where(field, found) if options.where else {}
    everything = {"step": found, "evaluation": evaluation, "curves": curves, "where": shares}
    everything["environment"] = environment()
    written = {options.json: json.dumps(everything, indent=1) + "\n", options.markdown: markdown(everything)}
    written[options.where] = where_markdown(shares)
    for path, text in written.items():
        if path:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    become_worker()
    main()
