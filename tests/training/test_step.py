"""One update: against independent implementations, and each method's law and disconnection inside the whole step."""

from dataclasses import replace

import pytest
import torch
from transformers import BertModel as Reference

from common.data.encoding import Batch
from common.declare.spec import (
    EncoderSpec,
    OptimizerSpec,
    PalSpec,
    RateSpec,
    RunSpec,
    ScheduleSpec,
    SmartSpec,
    SurgerySpec,
    TaskSpec,
    WeightingSpec,
)
from common.errors import StudyError
from common.model.bert import BertModel
from common.model.heads import MultitaskModel
from common.training.step import Trainer

QUIET = EncoderSpec(hidden_dropout=0.0, attention_dropout=0.0)
SST = TaskSpec("sst")
PARA, STS = TaskSpec("para", "pair", loss="bce"), TaskSpec("sts", "pair", loss="mse")
SEPARATE = TaskSpec("sts", "separate", loss="mse")
RATE = OptimizerSpec(lr=1e-3)
# Adam divides a gradient by its own size, so that where it is all but zero the last digit of a processor decides which
# way a whole step goes. With eps 1 a step is all but proportional to its gradient, and rounding stays rounding.
SMOOTH = OptimizerSpec(lr=0.1, eps=1.0)
SPEC = RunSpec((SST, PARA, STS), QUIET, ScheduleSpec("joint"), RATE, batch_size=8, epochs=2)
EVEN = replace(SPEC, optimizer=SMOOTH)
PCGRAD = SurgerySpec("pcgrad")


def build(spec, folder):
    encoder = BertModel.from_pretrained(folder, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return MultitaskModel(encoder, spec, torch.Generator().manual_seed(5))


def random_batch(seed, length, parts=1, classes=5, words=(5, 20)):
    generator = torch.Generator().manual_seed(seed)

    def part():
        ids = torch.randint(*words, (4, length), generator=generator)
        mask = (torch.arange(length) < torch.tensor([[length], [length], [4], [3]])).long()
        return ids, mask, (torch.arange(length) >= 4).long().expand(4, -1) * (classes == 1)

    labels = torch.randint(0, max(classes, 2), (4,), generator=generator).float()
    return Batch(tuple(part() for _ in range(parts)), labels)


def test_joint_updates_equal_an_implementation_with_transformers_and_torch(encoder_folder):
    """Five updates of encoder and heads; the reference sums the losses and steps torch.optim.AdamW once."""
    spec = replace(SPEC, tasks=(SST, PARA, SEPARATE), optimizer=replace(SMOOTH, weight_decay=0.01, variant="torch"))
    model = build(spec, encoder_folder)
    reference = Reference.from_pretrained(
        encoder_folder, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, attn_implementation="eager"
    )
    heads = {name: torch.nn.Linear(*reversed(model.heads[name].out.weight.shape)) for name in ("sst", "para", "sts")}
    for name, head in heads.items():
        head.load_state_dict(model.heads[name].out.state_dict())
    parameters = [*reference.parameters(), *(p for head in heads.values() for p in head.parameters())]
    theirs = torch.optim.AdamW(parameters, lr=0.1, eps=1.0, weight_decay=0.01)
    ours = Trainer(model, spec, updates=5)
    losses = {"sst": torch.nn.functional.cross_entropy, "para": torch.nn.functional.binary_cross_entropy_with_logits}

    def pooled(part):
        return reference(part[0], attention_mask=part[1], token_type_ids=part[2]).pooler_output

    for step in range(5):
        group = {
            "sst": random_batch(step, 9),
            "para": random_batch(10 + step, 11, classes=1),
            "sts": random_batch(20 + step, 7, parts=2, classes=6),
        }
        ours.update(group.items())
        outputs = {name: heads[name](torch.cat([pooled(p) for p in b.inputs], -1)) for name, b in group.items()}
        total = losses["sst"](outputs["sst"], group["sst"].labels.long())
        total = total + losses["para"](outputs["para"][:, 0], group["para"].labels)
        total = total + torch.nn.functional.mse_loss(outputs["sts"][:, 0], group["sts"].labels)
        theirs.zero_grad()
        total.backward()
        theirs.step()
    published = reference.state_dict()
    for name, tensor in model.encoder.state_dict().items():
        # float32; the five steps move weights by about 0.1
        torch.testing.assert_close(tensor, published[name], atol=1e-5, rtol=0, msg=name)
    for name, head in heads.items():
        torch.testing.assert_close(model.heads[name].out.weight, head.weight, atol=1e-5, rtol=0)


@pytest.mark.parametrize("task", ["sst", "para", "sts"])
def test_loss_falls_on_eight_examples(materials, task):
    spec = replace(SPEC, tasks=(replace(SPEC.task(task), examples=8),), schedule=ScheduleSpec(), epochs=1)
    spec = replace(spec, optimizer=OptimizerSpec(lr=3e-3, variant="torch"))
    trainer = Trainer(build(spec, materials.encoder_folder), spec, updates=40)
    batch = random_batch(1, 9, classes={"sst": 5, "para": 1, "sts": 1}[task])
    losses = [trainer.update([(task, batch)]).losses[0][1] for _ in range(40)]
    assert losses[-1] < 0.2 * losses[0]


GROUP = {"sst": random_batch(1, 9), "para": random_batch(2, 11, classes=1), "sts": random_batch(3, 7, classes=1)}


def after(spec, folder, updates=3, group=GROUP):
    """The model after a few updates on the same batches, and what the last update saw."""
    model = build(spec, folder)
    trainer = Trainer(model, spec, updates)
    seen = [trainer.update([(t, group[t]) for t in group if t in model.tasks]) for _ in range(updates)]
    return model, trainer, seen


def largest_difference(one, two):
    other = two.state_dict()
    return max(float((t - other[n]).abs().max()) for n, t in one.state_dict().items() if n in other)


def task_gradients(spec, folder):
    """Gradient of every task's loss alone, by autograd, for every parameter by name (None where it takes no part)."""
    model = build(spec, folder)
    losses = {"sst": torch.nn.functional.cross_entropy, "para": torch.nn.functional.binary_cross_entropy_with_logits}
    found = {}
    for task in model.tasks:
        output, labels = model(task, GROUP[task]), GROUP[task].labels
        if task == "sst":
            loss = losses["sst"](output, labels.long())
        else:
            loss = losses.get(task, torch.nn.functional.mse_loss)(output[:, 0], labels)
        names, parameters = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad), strict=True)
        found[task] = dict(zip(names, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True))
    return found


def test_pcgrad_update_equals_projected_vectors_of_two_tasks_and_leaves_heads_alone(encoder_folder):
    """Two tasks need no order, so algorithm 1 can be written out; STS is turned round to make it conflict."""
    spec = replace(SPEC, tasks=(PARA, STS), surgery=PCGRAD)
    found = task_gradients(spec, encoder_folder)
    shared = [n for n in found["sts"] if n.startswith("encoder.") and found["sts"][n] is not None]
    a, b = (torch.cat([found[t][n].flatten() for n in shared]) for t in ("para", "sts"))
    inner = a @ b
    expected = a + b if inner >= 0 else (a - inner / (b @ b) * b) + (b - inner / (a @ a) * a)
    model = build(spec, encoder_folder)
    trainer = Trainer(model, spec, 1)
    trainer.optimizer.param_groups[0]["lr"] = 0.0  # gradients are looked at, not used
    update = trainer.update([(t, GROUP[t]) for t in ("para", "sts")])
    named = dict(model.named_parameters())
    combined = torch.cat([named[n].grad.flatten() for n in shared])
    torch.testing.assert_close(combined, expected, atol=1e-5, rtol=1e-4)
    for task in ("para", "sts"):
        weight = f"heads.{task}.out.weight"
        torch.testing.assert_close(named[weight].grad, found[task][weight], atol=1e-6, rtol=1e-5)
    ((pair, cosine),) = update.cosines
    assert pair == ("para", "sts") and cosine == pytest.approx(float(inner / a.norm() / b.norm()), abs=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_pcgrad_of_conflicting_tasks_is_another_update_than_their_sum(encoder_folder, seed):
    """The same batch with labels turned round conflicts by construction; surgery must then change the encoder."""
    ids = random_batch(seed, 9, classes=1)
    batches = [("para", ids), ("para", Batch(ids.inputs, 1 - ids.labels))]
    models = {}
    for kind in ("measure", "pcgrad"):
        spec = replace(SPEC, tasks=(PARA, STS), surgery=SurgerySpec(kind))
        models[kind] = build(spec, encoder_folder)
        update = Trainer(models[kind], spec, 1).update(batches)
        assert update.cosines[0][1] < 0
    assert largest_difference(*models.values()) > 1e-5


def test_measuring_conflicts_changes_nothing(encoder_folder):
    plain, _, _ = after(EVEN, encoder_folder)
    measured, _, seen = after(replace(EVEN, surgery=SurgerySpec("measure")), encoder_folder)
    assert largest_difference(plain, measured) < 1e-6  # the sum in another order
    assert [pair for pair, _ in seen[0].cosines] == [("sst", "para"), ("sst", "sts"), ("para", "sts")]


def test_two_batches_of_one_task_are_compared_under_its_own_name(encoder_folder):
    model = build(SPEC, encoder_folder)
    trainer = Trainer(model, replace(SPEC, surgery=SurgerySpec("measure")), 1)
    update = trainer.update([("sst", GROUP["sst"]), ("sst", GROUP["sst"]), ("sts", GROUP["sts"])])
    cosines = {pair: c for pair, c in update.cosines}
    assert cosines["sst", "sst"] == pytest.approx(1, abs=1e-5)  # one batch twice, no dropout
    assert abs(cosines["sst", "sts"]) < 0.999


def test_pcgrad_runs_the_encoder_once_per_task(encoder_folder, monkeypatch):
    calls = []
    forward = BertModel.forward
    monkeypatch.setattr(BertModel, "forward", lambda self, *a, **k: calls.append(1) or forward(self, *a, **k))
    after(replace(SPEC, surgery=PCGRAD), encoder_folder, updates=2)
    assert len(calls) == 2 * 3


def test_pcgrad_leaves_frozen_and_unused_parameters_as_they_are(encoder_folder):
    """The packaged code fills zero gradients in, so that weight decay moves frozen weights."""
    encoder = replace(QUIET, frozen_layers=1)
    tasks = (replace(SST, pooling="cls"), replace(PARA, pooling="cls"), replace(STS, pooling="cls"))
    spec = replace(SPEC, tasks=tasks, encoder=encoder, surgery=PCGRAD, optimizer=replace(RATE, weight_decay=0.1))
    start = build(spec, encoder_folder).state_dict()
    model, trainer, _ = after(spec, encoder_folder)
    for name, tensor in model.state_dict().items():
        is_still = "embeddings" in name or "layer.0." in name or "pooler" in name
        assert torch.equal(tensor, start[name]) == is_still, name
    pooler = model.encoder.pooler["dense"].weight
    assert pooler.grad is None and pooler not in trainer.optimizer.state


def test_pcgrad_orders_come_from_the_seed_of_the_run(encoder_folder):
    """Three batches that conflict with each other: there the order of projections decides."""
    one, two = random_batch(1, 9, classes=1), random_batch(2, 9, classes=1)
    batches = [("para", one), ("para", Batch(one.inputs, 1 - one.labels)), ("para", Batch(two.inputs, 1 - two.labels))]

    def trained(seed):
        spec = replace(SPEC, tasks=(PARA, STS), surgery=PCGRAD, seed=seed)
        model = build(spec, encoder_folder)
        trainer = Trainer(model, spec, 4)
        cosines = [c for _ in range(4) for _, c in trainer.update(batches).cosines]
        assert min(cosines) < 0
        return model

    first = trained(0)
    assert largest_difference(first, trained(0)) == 0
    assert any(largest_difference(first, trained(seed)) > 0 for seed in range(1, 6))


@pytest.mark.parametrize("kind", ["linear", "uncertainty", "automatic", "dynamic"])
def test_weighted_losses_move_their_weights_at_their_own_rate(encoder_folder, kind):
    fixed, _, _ = after(SPEC, encoder_folder)
    slow, trainer, _ = after(replace(SPEC, weighting=WeightingSpec(kind, lr=1e-5)), encoder_folder)
    fast, quick, seen = after(replace(SPEC, weighting=WeightingSpec(kind, lr=1e-1)), encoder_folder)
    assert largest_difference(fixed, fast) > 1e-6 and largest_difference(slow, fast) > 1e-6
    start, moved = seen[0].factors, quick.weights.factors()
    assert all(abs(moved[t] - start[t]) > 10 * abs(trainer.weights.factors()[t] - start[t]) for t in start)
    (_, group) = trainer.optimizer.param_groups
    assert group["weight_decay"] == 0 and group["lr"] == 1e-5


def test_weighted_without_a_rate_of_its_own_takes_the_models(encoder_folder):
    _, trainer, _ = after(replace(SPEC, weighting=WeightingSpec("dynamic")), encoder_folder, updates=1)
    assert trainer.optimizer.param_groups[1]["lr"] == SPEC.optimizer.lr


def test_weighted_update_multiplies_each_gradient_by_its_factor(encoder_folder):
    spec = replace(SPEC, weighting=WeightingSpec("automatic"))
    found = task_gradients(spec, encoder_folder)
    model = build(spec, encoder_folder)
    trainer = Trainer(model, spec, 1)
    trainer.optimizer.param_groups[0]["lr"] = 0.0
    trainer.update(GROUP.items())
    for name, parameter in model.named_parameters():
        parts = [found[t][name] for t in found if found[t][name] is not None]
        if parts:
            torch.testing.assert_close(parameter.grad, 0.5 * sum(parts), atol=1e-5, rtol=1e-4, msg=name)


def test_fixed_loss_weight_of_a_task_scales_its_gradient(encoder_folder):
    plain, _, _ = after(SPEC, encoder_folder)
    heavier, _, _ = after(SPEC.with_tasks(sts={"loss_weight": 9.0}), encoder_folder)
    assert largest_difference(plain, heavier) > 1e-5


SMART = SmartSpec(weight=5.0, tasks=("sst", "para", "sts"))


def test_smart_weight_zero_is_exactly_off(encoder_folder):
    noisy = replace(SPEC, encoder=EncoderSpec())
    models = []
    for smart in (None, replace(SMART, weight=0.0)):
        torch.manual_seed(0)
        models.append(after(replace(noisy, smart=smart), encoder_folder)[0])
    assert largest_difference(*models) == 0


@pytest.mark.parametrize("variant", ["paper", "mt_dnn"])
def test_smart_changes_the_update_and_adds_a_positive_term(encoder_folder, variant):
    epsilon = {"paper": 0.1, "mt_dnn": 1e-6}[variant]
    smart = replace(SMART, variant=variant, epsilon=epsilon, step_size=0.1)
    plain, _, without = after(SPEC, encoder_folder)
    smooth, _, seen = after(replace(SPEC, smart=smart), encoder_folder)
    assert largest_difference(plain, smooth) > 1e-5
    assert not without[0].regularisers and [t for t, _ in seen[0].regularisers] == ["sst", "para", "sts"]
    assert all(value > 0 for _, value in seen[0].regularisers)
    assert dict(seen[0].losses) == pytest.approx(dict(without[0].losses))  # told apart from the loss itself


def test_smart_acts_on_the_named_tasks_alone(encoder_folder):
    _, _, seen = after(replace(SPEC, smart=replace(SMART, tasks=("sst",))), encoder_folder, updates=1)
    assert [task for task, _ in seen[0].regularisers] == ["sst"]


def test_smart_perturbs_both_sentences_of_a_separately_encoded_pair(encoder_folder, monkeypatch):
    spec = replace(SPEC, tasks=(SEPARATE,), smart=replace(SMART, tasks=("sts",)))
    seen = []
    forward = BertModel.forward
    monkeypatch.setattr(
        BertModel,
        "forward",
        lambda self, *a, noise=None, **k: seen.append(noise) or forward(self, *a, noise=noise, **k),
    )
    after(spec, encoder_folder, updates=1, group={"sts": random_batch(1, 7, parts=2, classes=1)})
    given = [noise for noise in seen if noise is not None]
    assert len(seen) == 6 and len(given) == 4 and all(noise.abs().max() > 0 for noise in given)


def test_smart_bregman_term_is_zero_before_the_first_update_and_pulls_after(encoder_folder):
    spec = replace(SPEC, smart=replace(SMART, weight=0.0, bregman=10.0))
    _, _, seen = after(spec, encoder_folder)
    assert max(abs(v) for _, v in seen[0].regularisers) < 1e-6 < max(v for _, v in seen[2].regularisers)
    pulled, _, _ = after(spec, encoder_folder)
    plain, _, _ = after(SPEC, encoder_folder)
    assert largest_difference(plain, pulled) > 1e-6


def test_pals_of_every_task_learn_in_a_joint_update(encoder_folder):
    spec = replace(SPEC, encoder=replace(QUIET, pals=PalSpec(8, 2)))
    start = build(spec, encoder_folder)
    model, _, _ = after(spec, encoder_folder)
    for task in model.tasks:
        assert largest_difference(start.pals[task], model.pals[task]) > 1e-5


def test_pals_of_a_frozen_encoder_are_what_learns(encoder_folder):
    spec = replace(SPEC, encoder=replace(QUIET, pals=PalSpec(8, 2), frozen=True))
    start = build(spec, encoder_folder)
    model, _, _ = after(spec, encoder_folder)
    assert largest_difference(start.encoder, model.encoder) == 0 < largest_difference(start.pals, model.pals)


def test_the_rate_follows_its_schedule(encoder_folder):
    spec = replace(SPEC, optimizer=replace(RATE, rate=RateSpec("linear", warmup=0.5)))
    model = build(spec, encoder_folder)
    trainer = Trainer(model, spec, updates=4)
    rates = []
    for _ in range(4):
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        trainer.update(GROUP.items())
    assert rates == pytest.approx([0, 5e-4, 1e-3, 5e-4])


def test_a_plateau_lowers_the_rate_and_an_undefined_score_is_no_improvement(encoder_folder):
    spec = replace(SPEC, epochs=10, optimizer=replace(RATE, rate=RateSpec("plateau", factor=0.5, patience=0.2)))
    trainer = Trainer(build(spec, encoder_folder), spec, updates=10)
    rates = []
    for score in (0.5, 0.6, 0.6, None, 0.1, 0.7):
        trainer.update([("sst", random_batch(0, 5))])
        trainer.rate.end_epoch(score)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 5e-4, 5e-4, 5e-4])  # the second bad epoch in a row


def test_a_loss_that_is_not_finite_stops_the_run(encoder_folder):
    model = build(SPEC, encoder_folder)
    torch.nn.init.constant_(model.heads["sst"].out.weight, float("nan"))
    with pytest.raises(StudyError, match=r"task sst: the loss is nan at rate 0\.001"):
        Trainer(model, SPEC, 1).update([("sst", random_batch(0, 5))])


ENGINES = {
    "joint": EVEN,
    "separate": replace(EVEN, tasks=(SST, PARA, replace(SEPARATE, pooling="mean"))),
    "decay, starter": replace(EVEN, optimizer=replace(SMOOTH, weight_decay=0.1, variant="starter")),
    "decay, torch": replace(EVEN, optimizer=replace(SMOOTH, weight_decay=0.1, variant="torch")),
    "pcgrad": replace(EVEN, surgery=PCGRAD),
    "weights": replace(EVEN, weighting=WeightingSpec("uncertainty")),
    # Noise that starts at 0.02, not 1e-5: float32 then leaves the direction alone that the search finds.
    "smart": replace(EVEN, smart=replace(SMART, variant="paper", noise=0.02, epsilon=0.1, step_size=0.1)),
    "bregman": replace(EVEN, smart=replace(SMART, weight=0.0, bregman=10.0)),
    "first layer frozen": replace(EVEN, encoder=replace(QUIET, frozen_layers=1)),
    "frozen": replace(EVEN, encoder=replace(QUIET, frozen=True)),
    "pals": replace(EVEN, encoder=replace(QUIET, pals=PalSpec(8, 2))),
}


@pytest.mark.parametrize("name", ENGINES)
def test_the_fast_engine_makes_the_same_updates(encoder_folder, name):
    """Losses, terms and gradients of each update on changing words, and the parameters after its step."""
    specs = [replace(ENGINES[name], engine=engine) for engine in ("plain", "fast")]
    plain, fast = (Trainer(build(spec, encoder_folder), spec, updates=4) for spec in specs)
    parts = 2 if name == "separate" else 1
    for step in range(4):
        words = (5 + 3 * step, 9 + 3 * step)  # four, of which one comes again in the next update
        group = {
            "sst": random_batch(step, 9, words=words),
            "para": random_batch(10 + step, 11, classes=1, words=words),
            "sts": random_batch(20 + step, 7, parts, classes=6 if parts == 2 else 1, words=words),
        }
        expected, found = (trainer.update(group.items()) for trainer in (plain, fast))
        assert dict(found.losses) == pytest.approx(dict(expected.losses), rel=1e-5)
        # The search for noise follows differences of outputs that are nearly equal.
        assert dict(found.regularisers) == pytest.approx(dict(expected.regularisers), rel=1e-3, abs=1e-6)
        named = dict(fast.model.named_parameters())
        for parameter_name, parameter in plain.model.named_parameters():
            # float32: the same sums in another order
            gradient = named[parameter_name].grad
            assert (gradient is None) == (parameter.grad is None), parameter_name
            if gradient is not None:
                gradient = gradient.to_dense() if gradient.is_sparse else gradient
                torch.testing.assert_close(gradient, parameter.grad, atol=1e-5, rtol=1e-4, msg=parameter_name)
        assert largest_difference(plain.model, fast.model) < 1e-5  # a word that decay or momentum forgot: 1e-3


def test_casts_are_those_of_the_weights_after_every_update(encoder_folder):
    spec = replace(SPEC, engine="fast", precision="bf16")
    model = build(spec, encoder_folder)
    trainer = Trainer(model, spec, 3)
    for _ in range(2):
        trainer.update(GROUP.items())
        assert len(model.weights.casts) == 2 * sum(isinstance(m, torch.nn.Linear) for m in model.encoder.modules())
        for parameter, (cast, _) in model.weights.casts.items():
            assert torch.equal(cast, parameter.to(torch.bfloat16))


def test_word_rows_of_earlier_updates_go_on_moving(encoder_folder):
    """Adam's momentum moves a word's row after the update that used it: the fast engine must not forget it."""
    spec = replace(SPEC, tasks=(SST,), schedule=ScheduleSpec(), engine="fast")
    model = build(spec, encoder_folder)
    trainer, table = Trainer(model, spec, 3), model.encoder.embeddings.word_embeddings.weight
    ids, mask, types = random_batch(1, 9).inputs[0]
    first = Batch(((torch.full_like(ids, 7), mask, types),), torch.zeros(4))
    second = Batch(((torch.full_like(ids, 8), mask, types),), torch.zeros(4))
    trainer.update([("sst", first)])
    before = table.detach().clone()
    trainer.update([("sst", second)])
    moved = (table - before).abs().amax(1)
    assert moved[7] > 1e-6 and moved[8] > 1e-6 and moved[9] == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_an_update_on_a_gpu_never_waits_for_it(encoder_folder):
    spec = replace(SPEC, precision="bf16")
    model = build(spec, encoder_folder).cuda()
    trainer = Trainer(model, spec, 3)
    group = {t: Batch(tuple(tuple(x.cuda() for x in p) for p in b.inputs), b.labels.cuda()) for t, b in GROUP.items()}
    trainer.update(group.items())  # the optimiser makes its state
    torch.cuda.set_sync_debug_mode("error")
    try:
        seen = trainer.update(group.items())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.isfinite(loss) for _, loss in seen.losses)
