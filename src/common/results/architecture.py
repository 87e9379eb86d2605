"""A model drawn from what trains it: its RunSpec as a Mermaid diagram, which JupyterLab and GitHub render.

A hand-drawn diagram says what its author believed. This one is read from the fields that build the model, so two rows
that differ in how sentences enter, what is shared, how a pair is compared, where a loss acts or how losses are combined
differ in their diagrams. Sizes of sets, rates, epochs and batch sizes are no part of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from common.declare.spec import EncoderSpec, RunSpec, SmartSpec, TaskSpec
from common.declare.tasks import TASK_NAMES, TASKS

POOLINGS = {"pooler": "pooled output", "cls": "first token", "mean": "mean over tokens"}
FEATURES = {"concat": "u, v side by side", "sbert": "u, v, |u - v| side by side"}
ACTIVATIONS = {"relu": "ReLU", "leaky_relu": "leaky ReLU", "gelu": "GELU", "tanh": "tanh"}
OUTPUTS = {
    "raw": "cosine",
    "relu": "ReLU(cosine)",
    "times_five": "5 cosine",
    "relu_times_five": "5 ReLU(cosine)",
    "shifted_times_five": "2.5 (1 + cosine)",
    "sigmoid_times_five": "5 sigmoid(cosine)",
}
LOSSES = {
    "cross_entropy": "cross-entropy",
    "bce": "binary cross-entropy",
    "mse": "squared error",
    "cosine_embedding": "cosine embedding loss",
    "cosine_embedding_sts": "cosine embedding loss, alike from 3 on",
    "mnrl": "multiple negatives ranking",
}
SCHEDULES = {
    "round_robin": "one task an update: all batches of a task, then of the next",
    "interleaved": "one task an update, in turn",
    "joint": "one update on a batch of every task",
    "biased": "one update on batches of drawn tasks",
    "annealed": "one task an update, drawn by its size",
    "sequential": "all epochs of one task, then of the next",
    "staged": "all epochs of one task, then of the next, then all tasks",
}
STOPS = {
    "shortest": "until the shortest set is used up",
    "longest": "until the longest set is used up",
    "cycle": "until the longest set is used up, short sets again",
}
WEIGHTINGS = {
    "linear": "w L",
    "uncertainty": "exp(-s) L + s / 2",
    "automatic": "L / (2 c^2) + log(1 + c^2)",
    "dynamic": "exp(-s) L + s",
}


def architecture(spec: RunSpec) -> str:
    """The model and its losses as the text of a Mermaid flowchart."""
    lines = [*_encoder(spec.encoder)]
    for task in spec.tasks:
        lines += [*_input(task, spec.encoder), *_head(task)]
    if any(task.shared_transformer for task in spec.tasks):
        lines.append(_node("shared", "transformer layer over the vectors of an example, shared"))
    for group in dict.fromkeys(task.shared_layer for task in spec.tasks if task.shared_layer):
        lines.append(_node(f"layer_{group}", f"linear layer, shared: {group}"))
    lines += [*_losses(spec)]
    return "\n".join(["flowchart TD", *(f"    {line}" for line in dict.fromkeys(lines))])


def _encoder(encoder: EncoderSpec) -> Iterator[str]:
    facts = [f"BERT ({encoder.checkpoint}), one for all tasks"]
    facts.append(f"dropout {encoder.hidden_dropout:g}, in attention {encoder.attention_dropout:g}")
    if encoder.frozen:
        facts.append("frozen")
    if encoder.frozen_layers:
        facts.append(f"embeddings and first {encoder.frozen_layers} layers frozen")
    yield _node("bert", *facts)
    if encoder.pretraining:
        texts = ", ".join(f"{corpus.examples:,} of {corpus.name}" for corpus in encoder.pretraining.corpora)
        share = f"{100 * encoder.pretraining.mask_frac:g} % of {encoder.pretraining.block} tokens"
        yield _node("pretraining", "further pretraining before the tasks", f"masked words, {share}", texts)
        yield _edge("pretraining", "bert", "weights", "==>")


def _input(task: TaskSpec, encoder: EncoderSpec) -> Iterator[str]:
    """From the sentences to the vectors that a head sees."""
    name = TASK_NAMES[task.name]
    is_apart = task.pair_method in ("separate", "cosine")
    inputs = {"a": f"{name}: first sentence", "b": f"{name}: second sentence"} if is_apart else {"in": _sentence(task)}
    for place, text in inputs.items():
        yield _node(f"{task.name}_{place}", text)
        yield _edge(f"{task.name}_{place}", "bert")
    if pals := encoder.pals:
        start = "from a random start" if pals.start == "random" else "from zero"
        own = f"an attention of {pals.heads} heads beside every layer"
        projections = f"one projection down to {pals.size} and one up{', GELU' if pals.gelu else ''} for all layers"
        yield _node(f"{task.name}_pals", f"PALs of {name}", own, projections, start)
        yield _edge(f"{task.name}_pals", "bert", "added to each layer")
    vectors = "u and v" if is_apart else "one vector"
    yield _node(f"{task.name}_vector", f"{vectors}: {POOLINGS[task.pooling]}")
    yield _edge("bert", f"{task.name}_vector")


def _sentence(task: TaskSpec) -> str:
    if task.pair_method == "single":
        return f"{TASK_NAMES[task.name]}: one sentence"
    between = "[SEP] between" if task.separator else "nothing between"
    return f"{TASK_NAMES[task.name]}: both sentences in one input, {between}{'' if task.segments else ', no segments'}"


def _head(task: TaskSpec) -> Iterator[str]:
    """From the vectors to the prediction: every step is a node, and a step that tasks share is one node for all."""
    name = task.name
    steps = [f"{name}_vector"]
    if task.shared_transformer:
        steps.append("shared")
    if task.projection:
        steps.append(f"{name}_dense")
        yield _node(steps[-1], f"dropout {task.dropout:g}, linear layer, {ACTIVATIONS[task.activation]}, each vector")
    if task.loss == "mnrl":
        yield _node(f"{name}_pairs", f"cosines of all pairs in a batch, times {task.scale:g}")
        yield _edge(steps[-1], f"{name}_pairs", TASK_NAMES[name] if steps[-1] == "shared" else "")
    steps += [step for step, _ in _last_steps(task)]
    yield from (_node(step, *texts) for step, texts in _last_steps(task) if texts)
    for start, stop in zip(steps, steps[1:], strict=False):
        yield _edge(start, stop, TASK_NAMES[name] if start == "shared" or start.startswith("layer_") else "")
    yield _node(f"{name}_out", _prediction(task))
    yield _edge(steps[-1], f"{name}_out")


def _last_steps(task: TaskSpec) -> list[tuple[str, tuple[str, ...]]]:
    """(node, its texts) of the head proper; a node drawn elsewhere has no text here."""
    name, head = task.name, f"{task.name}_head"
    if task.pair_method == "cosine":
        scale = f", cosine times {task.scale:g}" if task.scale != 1 and task.loss != "mnrl" else ""
        return [(head, (OUTPUTS[task.output] + scale,))]
    classes = TASKS[name].num_classes if task.loss == "cross_entropy" else 1
    out = f"linear layer to {classes} output{'s' * (classes > 1)}"
    drop = () if task.projection or not task.dropout else (f"dropout {task.dropout:g}",)
    joined = (FEATURES[task.features],) if task.pair_method == "separate" else ()
    if task.head_layers == 1:
        return [(head, (*joined, *drop, out))]
    inner = (f"dropout {task.dropout:g}",) if task.inner_dropout else ()
    last = (head, (ACTIVATIONS[task.activation], *inner, out))
    before = [(f"{name}_features", (*joined, *drop))] if joined or drop else []
    first = (f"layer_{task.shared_layer}", ()) if task.shared_layer else (f"{name}_first", ("linear layer",))
    return [*before, first, last]


def _prediction(task: TaskSpec) -> str:
    if TASKS[task.name].kind == "score":
        return "score, 0 to 5"
    if task.loss == "cross_entropy":
        return "likeliest class"
    what = "probability" if task.loss == "bce" else "cosine" if task.pair_method == "cosine" else "output"
    return f"yes if the {what} exceeds {task.threshold:g}"


def _losses(spec: RunSpec) -> Iterator[str]:
    """Where losses act, what multiplies them, and how an update is made of them."""
    learned = spec.weighting.kind != "fixed"
    for task in spec.tasks:
        if not task.trained or not spec.epochs:
            yield _node(f"{task.name}_loss", "not trained")
            yield _edge(f"{task.name}_out", f"{task.name}_loss", "", "-.->")
            continue
        yield _node(f"{task.name}_loss", LOSSES[task.loss])
        yield _edge(f"{task.name}_pairs" if task.loss == "mnrl" else f"{task.name}_head", f"{task.name}_loss")
        factors = [f"times {task.loss_weight:g}"] * (task.loss_weight != 1) + ["times its learned weight"] * learned
        yield _edge(f"{task.name}_loss", "update", ", ".join(factors))
    if not (spec.epochs and spec.trained_tasks):
        return
    yield _node("update", *_update(spec))
    if not spec.encoder.frozen or spec.encoder.pals:
        by = spec.encoder.trained_by
        only = "" if by is None else f" of {', '.join(TASK_NAMES[n] for n in by)} alone" if by else " of no task"
        yield _edge("update", "bert", f"gradients{' for the PALs' * spec.encoder.frozen}{only}", "-.->")
    if spec.smart and spec.smart.is_on:
        yield from _smart(spec.smart)


def _update(spec: RunSpec) -> list[str]:
    schedule, surgery = spec.schedule, spec.surgery
    facts = [SCHEDULES[schedule.kind]]
    if schedule.kind in ("interleaved", "joint"):
        facts.append(STOPS[schedule.stop])
    if schedule.repeats > 1:
        facts.append(f"{schedule.repeats} batches of each task")
    if schedule.order != "fixed":
        facts.append(f"order: {schedule.order}")
    if spec.weighting.kind != "fixed":
        half = ", half for regression" if spec.weighting.regression_half else ""
        facts.append(f"learned weights: {WEIGHTINGS[spec.weighting.kind]}{half}")
    if surgery.kind != "none":
        kinds = {"pcgrad": "PCGrad on shared gradients", "measure": "gradients added, their conflicts measured"}
        facts.append(f"{kinds[surgery.kind]}, {surgery.reduction}")
    return facts


def _smart(smart: SmartSpec) -> Iterator[str]:
    facts = [f"SMART ({smart.variant}): noise on the embeddings, {smart.steps} step{'s' * (smart.steps > 1)}"]
    facts.append(f"from {smart.noise:g} by {smart.step_size:g}, within {smart.epsilon:g}")
    if smart.bregman:
        facts.append(f"pull to the average weights ({smart.bregman_decay:g}), times {smart.bregman:g}")
    yield _node("smart", *facts)
    yield from (_edge("smart", f"{task}_loss", f"lambda {smart.weight:g}", "-.->") for task in smart.tasks)


def _node(name: str, *texts: str) -> str:
    return f'{name}["{"<br/>".join(texts)}"]'


def _edge(start: str, stop: str, text: str = "", arrow: str = "-->") -> str:
    return f'{start} {arrow}|"{text}"| {stop}' if text else f"{start} {arrow} {stop}"
