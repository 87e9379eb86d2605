"""Additional pretraining of any encoder: against the library, and its checkpoints, which are trained once."""

import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    Trainer,
    TrainingArguments,
    get_linear_schedule_with_warmup,
)

from common import paths
from common.data.encoding import load_tokenizer
from common.data.texts import load_texts
from common.declare.spec import CorpusSpec, PretrainingSpec
from common.errors import StudyError
from common.model.bert import BertModel
from common.training import pretrain
from common.training.pretrain import IGNORED

SPEC = PretrainingSpec((CorpusSpec("sick", 40), CorpusSpec("mnli", 20)), epochs=2, batch_size=4, lr=1e-3, block=32)
TEXTS = load_texts("embedded", "sick", 60)
MASK = pretrain.SPECIAL_TOKENS.index("[MASK]")


def quiet(done, total, note):
    pass


def without_dropout(folder, target):
    """A copy of an encoder folder whose config drops nothing, so that a reference can follow it."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = json.loads((folder / "config.json").read_text()) | off
    (target / "config.json").write_text(json.dumps(config))
    return target


def library_twin(model):
    """transformers.BertForMaskedLM with the same weights; its decoder is tied to its word embedding."""
    sizes = {name: getattr(model.encoder.config, name) for name in model.encoder.config.__dataclass_fields__}
    twin = BertForMaskedLM(BertConfig(**sizes))
    state = {name if name.startswith("cls.") else f"bert.{name}": t for name, t in model.published_state().items()}
    left = twin.load_state_dict(state, strict=False)
    assert set(left.missing_keys) <= {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    assert all("pooler" in name or "seq_relationship" in name for name in left.unexpected_keys)
    assert twin.cls.predictions.decoder.weight is twin.bert.embeddings.word_embeddings.weight
    return twin


def ours_by_library_name(model):
    named = dict(model.named_parameters())
    return {
        name.replace("encoder.", "bert.", 1) if name.startswith("encoder.") else name: p for name, p in named.items()
    }


def masked_batch(tokenizer, rows=6, size=32, seed=0):
    blocks = pretrain.token_blocks(TEXTS, tokenizer, size)[:rows]
    return pretrain.masking(tokenizer, 0.15, seed)(list(blocks))


def state_bytes(model):
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in model.state_dict().values())).hexdigest()


def adapted(folder, spec=SPEC, seed=0):
    model, tokenizer = pretrain.load(folder)
    return pretrain.adapt(model, tokenizer, TEXTS, spec, seed, quiet), model


def test_masked_loss_and_gradients_equal_the_librarys_masked_language_model(encoder_folder, tmp_path):
    model, tokenizer = pretrain.load(without_dropout(encoder_folder, tmp_path / "still"))
    twin, batch = library_twin(model), masked_batch(tokenizer)
    ours, theirs = model.masked_loss(**batch), twin(**batch, attention_mask=torch.ones_like(batch["input_ids"])).loss
    ours.backward(), theirs.backward()
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    mine = ours_by_library_name(model)
    for name, parameter in twin.named_parameters():
        # float32; the largest gradient is about 0.3
        torch.testing.assert_close(
            mine[name].grad, parameter.grad, atol=1e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )
    absent = torch.ones(len(mine["bert.embeddings.word_embeddings.weight"]), dtype=torch.bool)
    absent[batch["input_ids"].unique()] = False
    # Words that are not in the batch get a gradient from the tied decoder alone.
    assert absent.sum() > 2 and mine["bert.embeddings.word_embeddings.weight"].grad[absent].abs().sum(1).min() > 0
    assert mine["bert.pooler.dense.weight"].grad is None and mine["cls.seq_relationship.weight"].grad is None


def test_masked_loss_on_the_shipped_heads_equals_the_librarys():
    model, uncut = pretrain.load(paths.TINY_BERT)
    batch = masked_batch(uncut, size=128)
    theirs = BertForMaskedLM.from_pretrained(paths.TINY_BERT, dtype=torch.float32).eval()
    with torch.inference_mode():
        torch.testing.assert_close(model.eval().masked_loss(**batch), theirs(**batch).loss, atol=1e-5, rtol=0)


def test_masked_loss_without_a_masked_word_is_zero(encoder_folder):
    model, tokenizer = pretrain.load(encoder_folder)
    batch = masked_batch(tokenizer)
    loss = model.masked_loss(batch["input_ids"], torch.full_like(batch["labels"], IGNORED))
    loss.backward()
    assert loss.item() == 0 and not model.encoder.embeddings.word_embeddings.weight.grad.any()


def test_pretraining_updates_equal_the_librarys_model_optimiser_and_schedule(encoder_folder, tmp_path, monkeypatch):
    """Three updates beside transformers' model, torch's AdamW on the trainer's own decay groups, and its schedule.

    With eps 1 a step is all but proportional to its gradient. With the usual eps Adam divides a gradient that is all
    but zero by itself, and a processor's rounding becomes a whole step.
    """
    usual = [made([torch.zeros(1, requires_grad=True)]).defaults["eps"] for made in (pretrain.AdamW, torch.optim.AdamW)]
    assert usual[0] == usual[1]
    monkeypatch.setattr(pretrain, "AdamW", partial(pretrain.AdamW, eps=1.0))
    folder = without_dropout(encoder_folder, tmp_path / "still")
    model, tokenizer = pretrain.load(folder)
    twin = library_twin(model)
    blocks = pretrain.token_blocks(TEXTS, tokenizer, 32)[:12]
    spec = replace(SPEC, epochs=1, batch_size=5, weight_decay=0.1, lr=0.1)
    orders = [torch.randperm(12, generator=pretrain.stateless_generator(3, 0, "mlm"))]
    decayed = Trainer.get_decay_parameter_names(None, twin)
    groups = [
        {"params": [p for n, p in twin.named_parameters() if (n in decayed) == is_decayed], "weight_decay": decay}
        for is_decayed, decay in ((True, 0.1), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, lr=spec.lr, eps=1.0)
    schedule, mask = get_linear_schedule_with_warmup(optimizer, 0, 3), pretrain.masking(tokenizer, 0.15, 3)
    losses = []
    for rows in orders[0].split(5):
        loss = twin(**mask(list(blocks[rows]))).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), TrainingArguments.max_grad_norm)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    texts, count = [], 0
    for text in TEXTS:  # as many whole texts as make 12 blocks and a rest
        if count < 12 * 32:
            texts.append(text)
            count += len(tokenizer.encode(text).ids)
    assert pretrain.adapt(model, tokenizer, texts, spec, 3, quiet) == pytest.approx(losses, abs=1e-5)
    mine = ours_by_library_name(model)
    for name, parameter in twin.named_parameters():
        # float32; decay alone moves a weight by 2%
        torch.testing.assert_close(mine[name], parameter, atol=2e-6, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def test_pretraining_blocks_are_the_texts_in_order_with_the_rest_dropped(encoder_folder):
    _, tokenizer = pretrain.load(encoder_folder)
    texts = [" ".join(["good film"] * 40), "the dog runs .", "who sits"]
    ids = {word: tokenizer.token_to_id(word) for word in ["good", "film", "the", "dog", "runs", ".", "who", "sits"]}
    expected = [2, *[ids["good"], ids["film"]] * 40, 3, 2, *(ids[w] for w in ["the", "dog", "runs", "."]), 3]
    expected += [2, ids["who"], ids["sits"], 3]
    for size in (7, 32, 90):
        blocks = pretrain.token_blocks(texts, tokenizer, size)
        assert blocks.shape == (len(expected) // size, size)
        assert blocks.flatten().tolist() == expected[: len(expected) // size * size]
    with pytest.raises(ValueError, match="`texts` holds 4 tokens, which is less than one block of 8"):
        pretrain.token_blocks(["who sits"], tokenizer, 8)
    with pytest.raises(ValueError, match="`texts` holds 0 tokens"):
        pretrain.token_blocks([], tokenizer, 8)
    with pytest.raises(ValueError, match="`tokenizer` cuts long texts"):
        pretrain.token_blocks(texts, load_tokenizer(encoder_folder, 16), 8)


def test_pretraining_blocks_fit_the_positions_of_the_encoder(encoder_folder):
    losses, model = adapted(encoder_folder, replace(SPEC, block=512, epochs=1))
    _, tokenizer = pretrain.load(encoder_folder)
    tokens = sum(len(tokenizer.encode(text).ids) for text in TEXTS)
    assert len(losses) == -(-(tokens // model.encoder.config.max_position_embeddings) // 4)


def test_masked_shares_are_within_binomial_bounds_and_special_tokens_never_chosen():
    _, tokenizer = pretrain.load(paths.TINY_BERT)
    blocks = pretrain.token_blocks(load_texts("embedded", "mnli", 1000), tokenizer, 128)
    before = blocks.clone()
    batch = pretrain.masking(tokenizer, 0.15, 0)(list(blocks))
    ids, chosen = batch["input_ids"], batch["labels"] != IGNORED
    assert torch.equal(blocks, before) and torch.equal(ids[~chosen], before[~chosen])
    assert torch.equal(batch["labels"][chosen], before[chosen])
    special = before < len(pretrain.SPECIAL_TOKENS)
    assert special.sum() > 500 and not (chosen & special).any()

    def within(count, total, share):
        return abs(int(count) - total * share) < 4 * (total * share * (1 - share)) ** 0.5

    eligible, picked = int((~special).sum()), int(chosen.sum())
    kept_by_chance = 1 / tokenizer.get_vocab_size()  # an exchange may draw the same token
    assert within(picked, eligible, 0.15)
    assert within((ids[chosen] == MASK).sum(), picked, 0.8 + 0.1 * kept_by_chance)
    assert within((ids[chosen] == before[chosen]).sum(), picked, 0.1 + 0.1 * kept_by_chance)


def test_masked_words_are_drawn_from_the_seed_in_a_child_process_too(encoder_folder, monkeypatch):
    """The library's own seed is refused outside the main process, where the workers of a study live."""
    _, tokenizer = pretrain.load(encoder_folder)
    first, other = masked_batch(tokenizer), masked_batch(tokenizer, seed=1)
    monkeypatch.setattr(multiprocessing.current_process(), "name", "worker")
    torch.manual_seed(99)
    again = masked_batch(tokenizer)
    assert torch.equal(first["input_ids"], again["input_ids"]) and torch.equal(first["labels"], again["labels"])
    assert not torch.equal(first["labels"], other["labels"])


def test_pretraining_follows_from_its_arguments_alone(encoder_folder):
    """With dropout, whatever the global generator holds; and it leaves that one as it was."""
    model, tokenizer = pretrain.load(encoder_folder)
    assert model.encoder.config.hidden_dropout_prob > 0
    before = torch.get_rng_state()
    losses = pretrain.adapt(model, tokenizer, TEXTS, SPEC, 0, quiet)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    again, same = adapted(encoder_folder)
    assert losses == again and state_bytes(model) == state_bytes(same)
    assert state_bytes(adapted(encoder_folder, seed=1)[1]) != state_bytes(model)


@pytest.mark.parametrize("field", ["epochs", "batch_size", "lr", "weight_decay", "block", "mask_frac"])
def test_every_field_of_a_pretraining_spec_reaches_the_weights(encoder_folder, field):
    other = {"epochs": 1, "batch_size": 3, "lr": 2e-3, "weight_decay": 0.5, "block": 16, "mask_frac": 0.3}[field]
    changed = adapted(encoder_folder, replace(SPEC, **{field: other}))[1]
    assert state_bytes(changed) != state_bytes(adapted(encoder_folder)[1])


def test_pretraining_moves_the_encoder_and_leaves_what_takes_no_part(encoder_folder):
    start, _ = pretrain.load(encoder_folder)
    _, model = adapted(encoder_folder)
    before, after = start.state_dict(), model.state_dict()
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == {name for name in before if "pooler" in name or "seq_relationship" in name}


def test_pretraining_head_that_a_checkpoint_lacks_starts_at_random_from_the_seed(encoder_folder, tmp_path):
    model, tokenizer = pretrain.load(encoder_folder)
    head = model.cls["predictions"]
    assert head.transform["dense"].weight.std().item() == pytest.approx(0.02, rel=0.1)  # 1,024 draws: 4.5 deviations
    assert not head.bias.any() and not head.transform["dense"].bias.any()
    assert (
        torch.equal(head.transform["LayerNorm"].weight, torch.ones(32)) and not head.transform["LayerNorm"].bias.any()
    )
    assert state_bytes(model) == state_bytes(pretrain.load(encoder_folder)[0])
    assert state_bytes(model) != state_bytes(pretrain.load(encoder_folder, seed=1)[0])
    # One that is there is used, under the older names of its LayerNorm too.
    pretrain.save(model, tokenizer, tmp_path, torch.float32)
    state = load_file(tmp_path / "model.safetensors")
    gamma = torch.linspace(0.5, 1.5, 32)
    del state["cls.predictions.transform.LayerNorm.weight"]
    save_file(state | {"cls.predictions.transform.LayerNorm.gamma": gamma}, tmp_path / "model.safetensors")
    loaded, _ = pretrain.load(tmp_path, seed=1)
    assert torch.equal(loaded.cls["predictions"].transform["LayerNorm"].weight, gamma)
    assert torch.equal(loaded.cls["predictions"].transform["dense"].weight, head.transform["dense"].weight)


def test_pretraining_head_that_is_there_in_part_is_refused(encoder_folder, tmp_path):
    model, tokenizer = pretrain.load(encoder_folder)
    pretrain.save(model, tokenizer, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["cls.predictions.transform.dense.weight"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(StudyError, match="transform.dense.weight: expected"):
        pretrain.load(tmp_path)


def test_masked_loss_on_unseen_text_falls_with_pretraining_of_the_shipped_encoder():
    model, tokenizer = pretrain.load(paths.TINY_BERT)
    texts = load_texts("embedded", "sick", 500)
    batch = pretrain.masking(tokenizer, 0.15, 7)(list(pretrain.token_blocks(texts[400:], tokenizer, 128)))

    def loss():
        model.eval()
        with torch.inference_mode():
            return model.masked_loss(**batch).item()

    before = loss()
    spec = replace(SPEC, epochs=4, batch_size=16, lr=5e-4, block=128)
    losses = pretrain.adapt(model, tokenizer, texts[:400], spec, 0, quiet)
    assert loss() < 0.7 * before and losses[-1] < 0.8 * losses[0]


# The checkpoints of additional pretraining.


@pytest.fixture
def trained(monkeypatch):
    """How often a checkpoint was trained."""
    calls, adapt = [], pretrain.adapt

    def counted(*arguments):
        calls.append(arguments)
        return adapt(*arguments)

    monkeypatch.setattr(pretrain, "adapt", counted)
    return calls


def checkpoint(base, cache, spec=SPEC, source="embedded", seed=0):
    return pretrain.adapted_checkpoint(base, source, spec, cache, quiet, seed)


def test_pretrained_checkpoint_is_trained_once_and_reads_as_any_other(encoder_folder, tmp_path, trained):
    steps = []
    folder = pretrain.adapted_checkpoint(
        encoder_folder, "embedded", SPEC, tmp_path, lambda done, total, note: steps.append((done, total, note))
    )
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert folder == checkpoint(encoder_folder, tmp_path) and len(trained) == 1
    assert files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(files) == {"config.json", "model.safetensors", "tokenizer.json", "pretraining.json"}
    assert steps == [(i, len(steps), "pretraining") for i in range(1, len(steps) + 1)]

    base, encoder = BertModel.from_pretrained(encoder_folder), BertModel.from_pretrained(folder)
    assert encoder.config == base.config
    assert not torch.equal(
        encoder.encoder["layer"][0].output.dense.weight, base.encoder["layer"][0].output.dense.weight
    )
    assert not torch.equal(encoder.embeddings.word_embeddings.weight, base.embeddings.word_embeddings.weight)
    assert torch.equal(encoder.pooler["dense"].weight, base.pooler["dense"].weight)
    text = "the very good dog [SEP] unknown"
    assert load_tokenizer(folder, 48).encode(text).ids == load_tokenizer(encoder_folder, 48).encode(text).ids

    model, _, texts = trained[0][:3]
    assert texts == load_texts("embedded", "sick", 40) + load_texts("embedded", "mnli", 20)  # in the order of the spec
    assert all(torch.equal(t, load_file(folder / "model.safetensors")[n]) for n, t in model.published_state().items())
    origin = json.loads(files["pretraining.json"])
    assert len(origin["losses"]) == len(steps) and origin["seed"] == 0 and origin["spec"]["block"] == 32
    assert set(origin["texts"]) == {"sick", "mnli"}
    assert (
        origin["base"]["model.safetensors"]
        == hashlib.sha256((encoder_folder / "model.safetensors").read_bytes()).hexdigest()
    )


def test_pretrained_checkpoint_has_another_name_when_anything_it_follows_from_differs(
    encoder_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(pretrain, "adapt", lambda *arguments: [])
    cache = tmp_path / "cache"
    names = [checkpoint(encoder_folder, cache).name]
    assert checkpoint(encoder_folder, cache).name == names[0] and len(names[0]) == 16
    changes = {"epochs": 1, "batch_size": 8, "lr": 1e-4, "weight_decay": 0.0, "block": 16, "mask_frac": 0.2}
    specs = [replace(SPEC, **{name: value}) for name, value in changes.items()]
    specs += [replace(SPEC, corpora=SPEC.corpora[::-1]), replace(SPEC, corpora=(CorpusSpec("sick", 41),))]
    names += [checkpoint(encoder_folder, cache, spec).name for spec in specs]
    names.append(checkpoint(encoder_folder, cache, seed=1).name)
    names.append(checkpoint(without_dropout(encoder_folder, tmp_path / "still"), cache).name)
    (tmp_path / "still" / "vocab.txt").write_text((tmp_path / "still" / "vocab.txt").read_text() + "more\n")
    names.append(checkpoint(tmp_path / "still", cache).name)
    other = tmp_path / "still" / "model.safetensors"
    save_file({name: tensor * 2 for name, tensor in load_file(other).items()}, other)
    names.append(checkpoint(tmp_path / "still", cache).name)
    monkeypatch.setattr(pretrain, "load_texts", lambda *arguments: ["other texts"])
    names.append(checkpoint(encoder_folder, cache).name)
    monkeypatch.setattr(pretrain, "RECIPE", 0)
    names.append(checkpoint(encoder_folder, cache).name)
    assert len(set(names)) == len(names)


def test_pretrained_checkpoint_whose_writing_was_cut_short_is_not_used(encoder_folder, tmp_path, trained, monkeypatch):
    save = pretrain.save_file

    def torn(state, path, **options):
        save(state, path, **options)
        path.write_bytes(path.read_bytes()[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pretrain, "save_file", torn)
    with pytest.raises(OSError, match="No space"):
        checkpoint(encoder_folder, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir() and not path.name.startswith(".")]
    monkeypatch.setattr(pretrain, "save_file", save)
    folder = checkpoint(encoder_folder, tmp_path)
    assert len(trained) == 2 and BertModel.from_pretrained(folder)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [folder]


@pytest.mark.parametrize("damage", ["changed", "missing", "torn origin", "no origin"])
def test_pretrained_checkpoint_that_was_damaged_is_refused_and_trained_again(
    encoder_folder, tmp_path, trained, capsys, damage
):
    folder = checkpoint(encoder_folder, tmp_path)
    before = (folder / "model.safetensors").read_bytes()
    if damage == "changed":
        (folder / "model.safetensors").write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    elif damage == "missing":
        (folder / "tokenizer.json").unlink()
    elif damage == "torn origin":
        (folder / "pretraining.json").write_text("{")
    else:
        (folder / "pretraining.json").unlink()
    assert capsys.readouterr().err == ""
    assert checkpoint(encoder_folder, tmp_path) == folder and len(trained) == 2
    assert f"{folder} is damaged" in capsys.readouterr().err
    assert (folder / "model.safetensors").read_bytes() == before
    assert checkpoint(encoder_folder, tmp_path) == folder and len(trained) == 2


def test_pretrained_checkpoint_wanted_by_two_processes_is_trained_once(encoder_folder, tmp_path):
    code = """
import sys, time
from pathlib import Path
from common.declare.spec import CorpusSpec, PretrainingSpec
from common.training import pretrain
calls, adapt = [], pretrain.adapt
def slow(*arguments):
    calls.append(1)
    time.sleep(2)
    return adapt(*arguments)
pretrain.adapt = slow
spec = PretrainingSpec((CorpusSpec("sick", 20),), epochs=1, block=16)
ready, other = Path(sys.argv[3]), Path(sys.argv[4])
ready.touch()
while not other.exists():
    time.sleep(0.01)
folder = pretrain.adapted_checkpoint(Path(sys.argv[1]), "embedded", spec, Path(sys.argv[2]), lambda *a: None)
print(len(calls), folder.name)
"""
    marks = [tmp_path / "first", tmp_path / "second"]
    environment = os.environ | {"PYTHONPATH": str(paths.ROOT / "src"), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(encoder_folder), str(tmp_path / "cache"), str(mine), str(other)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for mine, other in (marks, marks[::-1])
    ]
    found = sorted(process.communicate(timeout=120)[0].split() for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert [calls for calls, _ in found] == ["0", "1"] and found[0][1] == found[1][1]


def test_pretraining_says_which_texts_are_missing_before_it_trains(encoder_folder, tmp_path, trained):
    (tmp_path / "data").mkdir()
    with pytest.raises(StudyError, match=r"there is no mlm-sick.txt.gz; looked for .*\[E-FILE\] Put the file there"):
        checkpoint(encoder_folder, tmp_path / "cache", source=str(tmp_path / "data"))
    assert not trained and not (tmp_path / "cache").exists()


def test_pretraining_leaves_the_library_alone_until_it_is_needed():
    code = "import sys, common.training.pretrain; print([m for m in ('transformers', 'datasets') if m in sys.modules])"
    environment = os.environ | {"PYTHONPATH": str(paths.ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"
