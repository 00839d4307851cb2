"""Sentence encoders from their files: the vectors of sentence-transformers, and none of the files' code."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from sklearn_mm.exceptions import WeightsError
from sklearn_mm.nn.pretrained import LoraSettings, add_lora, open_text_model, pad_tokens, rebuild
from tests.tiny_models import write_bert

TEXTS = ["a red square", "two blue dots in the box", "dog", "the Cat running, running and running", "", "zyzzyva"]
CLOSE = 1e-5  # float32, in the order of two libraries


def embed(model, texts):
    ids, _ = model.tokenizer.encode(texts)
    batch = pad_tokens(np.concatenate(ids).astype(np.int64), np.array([len(own) for own in ids]), model.tokenizer)
    with torch.inference_mode():
        return model.module(batch).numpy()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of sentence-transformers
@pytest.mark.parametrize(
    "files",
    [
        {},
        {"normalize": False},
        {"pooling": "cls_token"},
        {"pooling": "max_tokens"},
        {"pooling": "mean_sqrt_len_tokens", "normalize": False},
        {"pooling": "weightedmean_tokens"},
        {"pooling": "lasttoken"},
        {"dense": 8},
        {"max_seq_length": 6},
        {"prompts": {"query": "two red: "}},
    ],
    ids=str,
)
def test_vectors_are_those_of_sentence_transformers(tmp_path, files):
    library = pytest.importorskip("sentence_transformers")
    folder = write_bert(tmp_path, **files)
    expected = library.SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(TEXTS)
    answer = embed(open_text_model(folder), TEXTS)
    assert answer.shape[1] == files.get("dense", 16)
    np.testing.assert_allclose(answer, expected, atol=CLOSE)


def test_a_transformer_alone_is_pooled_by_the_mean_over_its_tokens(tmp_path):
    from transformers import AutoModel, AutoTokenizer

    folder = write_bert(tmp_path, pooling=None)
    tokens = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = AutoModel.from_pretrained(folder)(**tokens).last_hidden_state
    mask = tokens["attention_mask"][:, :, None]
    expected = (states * mask).sum(dim=1) / mask.sum(dim=1)
    np.testing.assert_allclose(embed(open_text_model(folder), TEXTS), expected.numpy(), atol=CLOSE)
    np.testing.assert_allclose(embed(open_text_model(folder, pooling="cls"), TEXTS), states[:, 0].numpy(), atol=CLOSE)


def test_a_prompt_stands_before_each_text(tmp_path):
    folder = write_bert(tmp_path, prompts={"query": "two red: "})
    asked = embed(open_text_model(folder), ["dog"])
    np.testing.assert_array_equal(asked, embed(open_text_model(folder, prompt=None), ["two red: dog"]))
    assert np.abs(asked - embed(open_text_model(folder, prompt="blue "), ["dog"])).max() > 0.01


def test_texts_in_a_batch_do_not_depend_on_each_other(tmp_path):
    model = open_text_model(write_bert(tmp_path))
    together = embed(model, TEXTS)
    for row, text in enumerate(TEXTS):
        np.testing.assert_allclose(embed(model, [text])[0], together[row], atol=CLOSE)


def test_batches_are_taken_from_and_joined_whatever_their_lengths(tmp_path):
    model = open_text_model(write_bert(tmp_path))
    ids, _ = model.tokenizer.encode(TEXTS)
    batches = [pad_tokens(np.array(own), np.array([len(own)]), model.tokenizer) for own in ids]
    joined = batches[0].join(batches[1]).join(batches[2])
    with torch.inference_mode():
        answer = model.module(joined.take(torch.tensor([2, 0]))).numpy()
    np.testing.assert_allclose(answer, embed(model, TEXTS)[[2, 0]], atol=CLOSE)


def test_texts_that_are_too_long_are_told(tmp_path):
    tokenizer = open_text_model(write_bert(tmp_path), max_length=5).tokenizer
    ids, cut = tokenizer.encode(["a red dog", "a red dog runs in the box", "dog"])
    assert cut == [1]
    assert [len(own) for own in ids] == [5, 5, 3]
    assert ids[1][-1] == 3  # [SEP] ends a text that was cut, too
    with pytest.raises(ValueError, match="reads 32 tokens at most"):
        open_text_model(tmp_path, max_length=33)


def test_a_model_is_built_again_from_its_configuration_and_its_weights(tmp_path):
    model = open_text_model(write_bert(tmp_path, dense=8))
    expected = embed(model, TEXTS)
    model.module = rebuild("nn.SentenceModule", model.module.config, model.module.state_dict())
    np.testing.assert_array_equal(embed(model, TEXTS), expected)


def test_identities_tell_weights_and_tokens_apart(tmp_path):
    folder = write_bert(tmp_path / "one")
    identity = open_text_model(folder).identity
    assert open_text_model(write_bert(tmp_path / "same")).identity == identity
    assert open_text_model(write_bert(tmp_path / "other", seed=1)).identity != identity
    assert open_text_model(folder, max_length=5).identity != identity
    assert open_text_model(folder, pooling="cls").identity != identity


def test_opening_a_model_draws_nothing_from_the_global_generator(tmp_path):
    folder = write_bert(tmp_path)
    before = torch.random.get_rng_state()
    open_text_model(folder)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_adapters_change_nothing_before_they_have_learnt(tmp_path):
    pytest.importorskip("peft")
    model = open_text_model(write_bert(tmp_path))
    expected = embed(model, TEXTS)
    add_lora(model.module, LoraSettings(rank=2))
    np.testing.assert_array_equal(embed(model, TEXTS), expected)
    learning = [name for name, parameter in model.module.named_parameters() if parameter.requires_grad]
    assert len(learning) == 2 * 6 * 2  # layers x linear layers of each x factors
    assert all("lora_" in name for name in learning)


# What is not opened -------------------------------------------------------------------------------------------------


def change(path, **entries):
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_no_code_of_a_model_is_run(tmp_path):
    folder = write_bert(tmp_path / "model")
    expected = embed(open_text_model(folder), TEXTS)
    ran = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Model: pass\nclass Config: pass\n")
    change(
        folder / "config.json",
        auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"},
        _attn_implementation="kernels-community/evil",
        _attn_implementation_internal="kernels-community/evil",
    )
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Model", "evil.Model"]})
    np.testing.assert_array_equal(embed(open_text_model(folder), TEXTS), expected)
    change(folder / "config.json", model_type="evil")
    with pytest.raises(WeightsError, match="'evil', which this transformers does not know"):
        open_text_model(folder)
    assert not ran.exists()


def test_modules_of_other_classes_are_refused(tmp_path):
    folder = write_bert(tmp_path)
    stages = json.loads((folder / "modules.json").read_text())
    stages[1]["type"] = "evil.Layer"
    (folder / "modules.json").write_text(json.dumps(stages))
    with pytest.raises(WeightsError, match=r"names 'evil.Layer' in place 1"):
        open_text_model(folder)
    stages[1].update(type="sentence_transformers.models.Pooling", path="../elsewhere")
    (folder / "modules.json").write_text(json.dumps(stages))
    with pytest.raises(WeightsError, match="leads out of its folder"):
        open_text_model(folder)


def test_pickles_of_weights_are_read_as_tensors_alone(tmp_path):
    import pickle

    from safetensors.torch import load_file

    folder = write_bert(tmp_path / "model")
    expected = embed(open_text_model(folder), TEXTS)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    np.testing.assert_array_equal(embed(open_text_model(folder), TEXTS), expected)

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weights": Evil()}))
    with pytest.raises(Exception, match="(?i)weights.only|pickle|load"):
        open_text_model(folder)
    assert not (tmp_path / "ran").exists()


def test_weights_that_are_missing_are_named(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = write_bert(tmp_path)
    state = load_file(folder / "model.safetensors")
    del state["encoder.layer.1.output.dense.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lack 1 of the model's, 'encoder.layer.1.output.dense.weight'"):
        open_text_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="holds no weights"):
        open_text_model(folder)


def test_a_name_is_not_downloaded_without_being_asked_to(tmp_path, monkeypatch):
    import socket

    def refuse(*args, **kwargs):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"local_files_only=False to download it.*hf download nobody/has-this"):
        open_text_model("nobody/has-this")
    with pytest.raises(WeightsError, match="there is no folder"):
        open_text_model(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="holds no model"):
        open_text_model(tmp_path / "empty")


# What it was trained on ---------------------------------------------------------------------------------------------


def test_the_data_of_a_model_are_read_from_its_card(tmp_path):
    folder = write_bert(tmp_path)
    assert open_text_model(folder).trained_on is None
    (folder / "README.md").write_text(
        "---\nlicense: mit\ndatasets:\n- snli\n- embedding-data/flickr30k-captions\n---\n"
    )
    assert open_text_model(folder).trained_on == ("snli", "embedding-data/flickr30k-captions")
