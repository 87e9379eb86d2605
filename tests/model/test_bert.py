"""Our BERT against transformers.BertModel, and the laws an encoder keeps."""

import json
from importlib import metadata

import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig as ReferenceConfig
from transformers import BertModel as Reference

from common.errors import StudyError
from common.model.bert import BertConfig, BertModel
from common.model.weights import MINILM_PACKAGE, resolve_encoder

CONFIGS = {
    "small": BertConfig(97, 48, 3, 4, 64, max_position_embeddings=40),
    "one head": BertConfig(50, 16, 1, 1, 32, max_position_embeddings=32),
    "wide heads, loose eps": BertConfig(61, 64, 2, 2, 100, max_position_embeddings=32, layer_norm_eps=1e-5),
}


# Two implementations round differently, and on another processor differently again. In float64 that stays below 1e-12
# of a state, so 1e-9 is far above rounding and far below what any other formula would give.
CLOSE = {"atol": 1e-9, "rtol": 1e-9}


def random_model(config, seed=0):
    model = BertModel(config)
    # 0.2 instead of 0.02: differences would hide in an encoder that is almost the identity.
    model.reset_parameters(torch.Generator().manual_seed(seed), std=0.2)
    return model.eval()


def padded_batch(config, seed=1):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, config.vocab_size, (4, 24), generator=generator)
    mask = (torch.arange(24) < torch.tensor([[24], [17], [9], [1]])).long()
    types = (torch.arange(24) >= 8).long().expand(4, -1)
    return ids, mask, types


def reference_of(model):
    reference = Reference(ReferenceConfig(**vars(model.config), attn_implementation="eager"))
    reference.load_state_dict(model.state_dict())
    return reference.to(model.embeddings.LayerNorm.weight.dtype).eval()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("segments", [True, False])
def test_equals_transformers_with_padding_and_segments(config, segments):
    model, (ids, mask, types) = random_model(config).double(), padded_batch(config)
    types = types if segments else None
    ours = model(ids, mask, types, output_attentions=True)
    theirs = reference_of(model)(ids, attention_mask=mask, token_type_ids=types, output_attentions=True)
    real = mask.bool()
    torch.testing.assert_close(ours.last_hidden_state[real], theirs.last_hidden_state[real], **CLOSE)
    torch.testing.assert_close(ours.pooler_output, theirs.pooler_output, **CLOSE)
    for mine, other in zip(ours.attentions, theirs.attentions, strict=True):
        torch.testing.assert_close(mine, other, **CLOSE)


def test_gradients_equal_transformers():
    config = CONFIGS["small"]
    model, (ids, mask, types) = random_model(config).double(), padded_batch(config)
    reference = reference_of(model)
    model(ids, mask, types).pooler_output.sum().backward()
    reference(ids, attention_mask=mask, token_type_ids=types).pooler_output.sum().backward()
    theirs = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, **CLOSE, msg=name)


def test_minilm_package_equals_transformers():
    if not any(package.name == MINILM_PACKAGE for package in metadata.distributions()):
        pytest.skip("the MiniLM package is not installed (the cpu profile installs it)")
    folder = resolve_encoder("minilm-l6")
    model, reference = (loaded.from_pretrained(folder).double().eval() for loaded in (BertModel, Reference))
    ids, mask, types = padded_batch(model.config)
    with torch.inference_mode():
        ours, theirs = model(ids, mask, types), reference(ids, attention_mask=mask, token_type_ids=types)
    real = mask.bool()
    torch.testing.assert_close(ours.last_hidden_state[real], theirs.last_hidden_state[real], **CLOSE)
    torch.testing.assert_close(ours.pooler_output, theirs.pooler_output, **CLOSE)


def test_padding_does_not_change_a_sentence():
    model = random_model(CONFIGS["small"]).double()
    ids, mask, types = padded_batch(CONFIGS["small"])
    alone = model(ids[1:2, :17], mask[1:2, :17], types[1:2, :17])
    padded = model(ids[1:2], mask[1:2], types[1:2])
    torch.testing.assert_close(alone.last_hidden_state, padded.last_hidden_state[:, :17], **CLOSE)


def test_attention_rows_sum_to_one_and_never_reach_padding():
    model = random_model(CONFIGS["small"])
    ids, mask, types = padded_batch(CONFIGS["small"])
    for attention in model(ids, mask, types, output_attentions=True).attentions:
        torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:-1]))
        assert attention[1, :, :, 17:].max() == 0


def test_segments_and_word_order_matter():
    model = random_model(CONFIGS["small"])
    ids, mask, types = padded_batch(CONFIGS["small"])
    plain = model(ids, mask, types).pooler_output[0]
    assert (plain - model(ids, mask).pooler_output[0]).abs().max() > 1e-3
    swapped = ids.clone()
    swapped[:, [3, 5]] = ids[:, [5, 3]]
    assert (plain - model(swapped, mask, types).pooler_output[0]).abs().max() > 1e-3


@pytest.mark.parametrize("seed", range(2))
def test_noise_equals_transformers_with_noise_on_its_embeddings(seed):
    config = CONFIGS["small"]
    model, (ids, mask, types) = random_model(config, seed).double(), padded_batch(config)
    reference, noise = reference_of(model), torch.randn(4, 24, config.hidden_size, dtype=torch.float64)
    # transformers has no such argument: a hook changes what its embeddings return.
    reference.embeddings.register_forward_hook(lambda module, inputs, output: output + noise)
    ours, theirs = model(ids, mask, types, noise=noise), reference(ids, attention_mask=mask, token_type_ids=types)
    real = mask.bool()
    torch.testing.assert_close(ours.last_hidden_state[real], theirs.last_hidden_state[real], **CLOSE)
    torch.testing.assert_close(ours.pooler_output, theirs.pooler_output, **CLOSE)


def test_zero_noise_changes_nothing_and_gradients_reach_noise_on_real_tokens_only():
    config = CONFIGS["small"]
    model, (ids, mask, types) = random_model(config), padded_batch(config)
    noise = torch.zeros(4, 24, config.hidden_size, requires_grad=True)
    output = model(ids, mask, types, noise=noise)
    assert torch.equal(output.last_hidden_state, model(ids, mask, types).last_hidden_state)
    output.pooler_output.sum().backward()
    reached = noise.grad.abs().amax(-1) > 0
    assert torch.equal(reached, mask.bool())


def test_noise_comes_after_layer_norm_and_dropout():
    config = CONFIGS["small"]
    model, (ids, mask, types) = random_model(config), padded_batch(config)
    noise, first_inputs = torch.randn(4, 24, config.hidden_size), []
    model.encoder["layer"][0].register_forward_pre_hook(lambda module, inputs: first_inputs.append(inputs[0]))
    model(ids, mask, types, noise=noise)
    assert torch.equal(first_inputs[0], model.embeddings(ids, types) + noise)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_freeze_first_stops_the_embeddings_and_those_layers_only(layers):
    model = random_model(CONFIGS["small"])
    model.freeze_first(layers)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    prefixes = ("embeddings.", *(f"encoder.layer.{index}." for index in range(layers)))
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith(prefixes)}
    ids, mask, types = padded_batch(model.config)
    model(ids, mask, types).pooler_output.sum().backward()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is None} == frozen


def test_freeze_first_refuses_more_layers_than_there_are():
    model = random_model(CONFIGS["small"])
    with pytest.raises(StudyError, match=r"encoder\.frozen_layers: the encoder has 3 layers, not 4.*at most 3"):
        model.freeze_first(4)
    assert all(parameter.requires_grad for parameter in model.parameters())


def save_checkpoint(folder, model, rename=lambda name: name, **config):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(vars(model.config) | {"model_type": "bert"} | config))
    save_file(
        {rename(name): tensor.clone() for name, tensor in model.state_dict().items()}, folder / "model.safetensors"
    )
    return folder


def test_reads_prefixed_names_and_old_layer_norm_names(tmp_path):
    def published(name):
        return "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    model = random_model(CONFIGS["small"])
    loaded = BertModel.from_pretrained(save_checkpoint(tmp_path / "old", model, published))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


def test_reads_a_checkpoint_that_transformers_saved(tmp_path):
    model = random_model(CONFIGS["small"])
    reference_of(model).save_pretrained(tmp_path / "hf")
    loaded = BertModel.from_pretrained(tmp_path / "hf")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


def test_refuses_what_it_cannot_read(tmp_path):
    model = random_model(CONFIGS["small"])
    folder = save_checkpoint(tmp_path / "ok", model)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(StudyError, match="not a valid safetensors file"):
        BertModel.from_pretrained(folder)
    pickled = save_checkpoint(tmp_path / "bin", model)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(StudyError, match="pickle is not read"):
        BertModel.from_pretrained(pickled)
    other = save_checkpoint(tmp_path / "other", model, model_type="roberta")
    with pytest.raises(StudyError, match="model_type is 'roberta'"):
        BertModel.from_pretrained(other)
    narrow = save_checkpoint(tmp_path / "narrow", model, intermediate_size=32)
    with pytest.raises(StudyError, match=r"intermediate\.dense\.weight: expected \(32, 48\), found \(64, 48\)"):
        BertModel.from_pretrained(narrow)
    with pytest.raises(StudyError, match="no such folder"):
        BertModel.from_pretrained("./nowhere")


def test_refuses_a_mask_of_another_shape_and_too_many_tokens():
    model = random_model(CONFIGS["small"])
    ids, mask, _ = padded_batch(CONFIGS["small"])
    with pytest.raises(ValueError, match="attention_mask"):
        model(ids, mask[:, :5])
    with pytest.raises(ValueError, match="41 tokens"):
        model(torch.ones(1, 41, dtype=torch.long), torch.ones(1, 41))


def test_fused_attention_equals_the_plain_one_and_refuses_padding():
    """The GPU's way, run here on a CPU: torch's kernel in evaluation mode gives the same context."""
    model = BertModel(BertConfig(60, 32, 1, 4, 64, max_position_embeddings=16)).eval()
    model.reset_parameters(torch.Generator().manual_seed(0), std=0.3)
    hidden = torch.randn(3, 7, 32, generator=torch.Generator().manual_seed(1))
    real = torch.arange(7) < torch.tensor([[7], [4], [2]])
    bias = torch.zeros(3, 7).masked_fill(~real, -1e9)[:, None, None, :]
    attention = model.encoder["layer"][0].attention["self"]
    plain, maps = attention(hidden, bias)
    fused, none = attention(hidden, bias, is_fused=True)
    torch.testing.assert_close(fused[real], plain[real], atol=1e-5, rtol=1e-5)
    assert none is None and maps.shape == (3, 4, 7, 7)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_the_gpu_encoder_agrees_with_the_cpu():
    model = BertModel(BertConfig(60, 32, 2, 4, 64, max_position_embeddings=16)).eval()
    model.reset_parameters(torch.Generator().manual_seed(0), std=0.3)
    ids, mask = torch.randint(1, 60, (3, 7)), (torch.arange(7) < torch.tensor([[7], [4], [2]])).long()
    here = model(ids, mask).pooler_output
    there = model.cuda()(ids.cuda(), mask.cuda()).pooler_output.cpu()
    torch.testing.assert_close(there, here, atol=1e-3, rtol=1e-3)
