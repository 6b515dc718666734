"""Video grounding from a store and sentences to answers: data, words, choice of the epoch, run folder, commands."""

from __future__ import annotations

import json
import math
import shutil
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from grounded import CORPUS, WIDTH, told_store
from uptal.annotations import read_groundings, read_queries
from uptal.checkpoint import best_facts, save_best
from uptal.cli import main as uptal
from uptal.errors import AnnotationError, CheckpointError, ConfigError
from uptal.features import FeatureStore
from uptal.localizers.lgi import LGI, LGIConfig, all_locally
from uptal.localizers.lgi_candidates import candidates
from uptal.localizers.lgi_targets import attention_on_clock
from uptal.localizers.lgi_task import GroundingData, GroundingTask, QueryBatcher, VideoFeatures, split_held_out
from uptal.localizers.lgi_weights import from_official
from uptal.localizers.queries import Vocabulary
from uptal.localizers.text import VocabularyText, Words, read_encoder
from uptal.recipes import lgi as recipes
from uptal.recipes.grounder_files import load_grounder
from uptal.recipes.grounding import train_grounder
from uptal.recipes.questions import answer, read_questions
from uptal.synthetic.sentences import video_queries, write_queries
from uptal.types import Query

TINY = LGIConfig(
    in_channels=WIDTH, vocabulary=10, num_segments=16, word_width=12, lstm_width=8, attention_width=8,
    regression_width=16, local_kernel=3, dropout=0.1,
)  # fmt: skip


def settings(**more) -> recipes.LGISettings:
    cfg = recipes.small()
    net = replace(cfg.lgi, num_segments=20, word_width=24, lstm_width=16, attention_width=16, regression_width=32,
                  dropout=0.1)  # fmt: skip
    return replace(cfg, lgi=net, optim=replace(cfg.optim, epochs=2, batch=20, lr_batch=20), **more)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """`store/ queries.csv run/`: a store, sentences about its videos, and a run of two epochs."""
    folder = tmp_path_factory.mktemp("grounding")
    told_store(folder / "store")
    write_queries(folder / "queries.csv", CORPUS)
    lines = (folder / "queries.csv").read_text().splitlines(keepends=True)
    (folder / "test.csv").write_text("".join([lines[0], *(x for x in lines if x.endswith("validation\n"))]))
    train_grounder(settings(), folder / "store", folder / "queries.csv", folder / "run", test=folder / "test.csv")
    return folder


class TestSentences:
    def test_they_follow_from_the_settings_alone(self, tmp_path):
        write_queries(tmp_path / "a.csv", CORPUS)
        write_queries(tmp_path / "b.csv", CORPUS)
        assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
        assert video_queries(CORPUS, 3) != video_queries(replace(CORPUS, seed=6), 3)

    def test_no_two_sentences_of_a_video_say_the_same_of_different_stretches(self):
        for index in range(60):
            queries = video_queries(CORPUS, index)
            assert len({q.sentence for q in queries}) == len(queries)
            assert all(0 <= q.start < q.end <= q.duration for q in queries)

    def test_order_repetition_and_speed_occur(self):
        said = " ".join(q.sentence for index in range(60) for q in video_queries(CORPUS, index))
        assert all(words in said for words in (", then ", "after ", "for the second time", "quickly", "slowly"))

    def test_an_order_spans_both_or_the_second(self):
        for index in range(60):
            queries = video_queries(CORPUS, index)
            singles = [q for q in queries if ", " not in q.sentence]
            for query in queries:
                if ", then " in query.sentence:
                    assert sum(query.start <= q.start and q.end <= query.end for q in singles) == 2
                elif query.sentence.startswith("after"):
                    assert [(query.start, query.end)] == [
                        (q.start, q.end) for q in singles if (q.start, q.end) == (query.start, query.end)
                    ]


class TestNetwork:
    def inputs(self, cfg: LGIConfig, batch: int = 3):
        torch.manual_seed(1)
        known = torch.arange(6)[None] < torch.tensor([[6], [1], [4]])[:batch]
        words = torch.randint(1, cfg.vocabulary, known.shape) * known
        valid = torch.arange(cfg.num_segments)[None] < torch.tensor([[16], [5], [1]])[:batch]
        return words, known, torch.randn(batch, cfg.num_segments, WIDTH) * valid[..., None], valid

    @pytest.mark.parametrize("training", [True, False])
    def test_grouped_convolutions_equal_one_after_the_other(self, training):
        models = [LGI(TINY).train(training) for _ in range(2)]
        for block in models[0].vti_fn.local_fn:
            torch.nn.init.normal_(block.blocks[0][0].weight)
        models[1].load_state_dict(models[0].state_dict())
        fused = [torch.randn(3, 16, 16) for _ in range(3)]
        alone = [block(x) for block, x in zip(models[0].vti_fn.local_fn, fused, strict=True)]
        together = all_locally(list(models[1].vti_fn.local_fn), fused)
        for one, other in zip(alone, together, strict=True):
            assert torch.allclose(one, other, atol=1e-5)  # float32 sums in another order
        for name, value in models[0].state_dict().items():
            assert torch.allclose(value, models[1].state_dict()[name], atol=1e-6), name  # batch statistics

    def test_phrases_and_global_blocks_start_as_copies_and_word_embeddings_of_phrases_do_not(self):
        model = LGI(TINY)
        for blocks in (model.vti_fn.fusion_fn, model.vti_fn.local_fn, model.vti_fn.global_fn):
            first, second = (list(block.parameters()) for block in list(blocks)[:2])
            assert all(torch.equal(a, b) and a is not b for a, b in zip(first, second, strict=True))
        assert not torch.equal(model.sqan.global_emb_fn[0].weight, model.sqan.global_emb_fn[1].weight)

    @pytest.mark.parametrize(
        "variant",
        [{}, {"num_phrases": 1, "global_blocks": 1, "global_heads": 1}, {"fusion": "add"}, {"fusion": "concat"},
         {"local": "masked_nl", "local_blocks": 2}],
    )  # fmt: skip
    def test_public_checkpoints_are_recognised(self, variant):
        cfg = replace(TINY, **variant)
        model = LGI(cfg).eval()
        nested = {name: part.state_dict() for name, part in model.named_children()}
        back = from_official(nested, replace(TINY, global_heads=cfg.global_heads))
        assert back.cfg == cfg
        inputs = self.inputs(cfg)
        assert torch.equal(back(*inputs).location, model(*inputs).location)
        with pytest.raises(CheckpointError, match="1 are missing"):
            from_official({k: v for k, v in model.state_dict().items() if k != "vti_fn.satt_fn.fc.bias"}, cfg)

    def test_another_checkpoint_is_refused(self):
        with pytest.raises(CheckpointError, match="no LGI checkpoint"):
            from_official({"weight": torch.zeros(2)})

    def test_half_precision_gives_finite_answers(self):
        words, known, features, valid = self.inputs(TINY)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = LGI(TINY)(words, known, features, valid)
        assert found.over_time.detach().float().sum(1) == pytest.approx(1, abs=0.02)  # bf16 has eight bits
        assert found.location.isfinite().all()


class TestTargets:
    def test_by_the_clock_segments_count_whose_middle_lies_inside(self):
        centres = np.arange(8) + 0.5
        assert attention_on_clock(2.0, 4.0, centres, 10).tolist() == [0, 0, 1, 1, 0, 0, 0, 0, 0, 0]
        assert attention_on_clock(2.6, 2.9, centres, 10).tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
        assert attention_on_clock(40.0, 50.0, centres, 8)[-1] == 1


class TestData:
    def data(self, place, **more) -> GroundingData:
        queries = read_queries(place / "queries.csv", "training")
        text = VocabularyText(Vocabulary.of(q.sentence for q in queries), 12)
        batcher = QueryBatcher(text, VideoFeatures(FeatureStore(place / "store")), 12, **more)
        return GroundingData(batcher, queries, batch=20, seed=3)

    def test_an_epoch_asks_each_query_once_but_for_the_incomplete_batch(self, place):
        data = self.data(place)
        batches = list(data.batches(0))
        assert len(batches) == data.steps_per_epoch == len(data.queries) // 20
        assert batches[-1].position == 20 * len(batches)

    def test_batches_from_the_middle_of_an_epoch_are_the_same(self, place):
        whole, rest = list(self.data(place).batches(1)), list(self.data(place).batches(1, 40))
        assert len(rest) == len(whole) - 2
        for one, other in zip(whole[2:], rest, strict=True):
            assert one.names == other.names
            assert torch.equal(one.features, other.features)

    def test_videos_longer_than_the_segments_are_sampled_differently_in_training(self, place):
        data = self.data(place)
        fixed = data.batcher.batch(data.queries[:20], data.batcher.text.encode(["a b"] * 20))
        moved = data.batcher.batch(data.queries[:20], data.batcher.text.encode(["a b"] * 20), [0.99] * 20)
        assert not torch.equal(fixed.features, moved.features)
        assert torch.equal(fixed.attention, moved.attention)  # the public code's target ignores the offset
        assert fixed.valid.all()

    def test_both_clocks_agree_where_clips_tile_the_video(self, place):
        query = Query(id="0", video="untrimmed_00000", sentence="a b", start=1.6, end=3.2, duration=6.4)
        words = Words(torch.ones(1, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.bool))
        share = self.data(place).batcher
        share = replace(share, num_segments=20)
        one, other = (replace(share, clock=c).batch([query], words).attention[0] for c in ("share", "timebase"))
        assert (one - other).abs().sum() <= 1  # the public range includes its end

    def test_one_clip_and_a_late_end_are_no_trouble(self, place):
        read = VideoFeatures(FeatureStore(place / "store"))
        short = replace(read("untrimmed_00000"), values=read("untrimmed_00000").values[:1])
        text = VocabularyText(Vocabulary.of(["a b"]), 4)
        batcher = QueryBatcher(text, lambda _: short, 16)
        query = Query(id="0", video="v", sentence="a b", start=5.0, end=9.0, duration=6.4)
        batch = batcher.batch([query], text.encode(["a b"]))
        assert batch.valid.sum() == 1
        assert batch.location[0].tolist() == pytest.approx([5 / 6.4, 9 / 6.4])
        losses = GroundingTask(LGI(replace(TINY, vocabulary=6)).eval()).loss(batch)
        assert losses["loss"].isfinite()

    def test_held_out_videos_do_not_depend_on_the_others(self, place):
        queries = read_queries(place / "queries.csv")
        kept, held = split_held_out(queries, 0.3, 0)
        assert {q.video for q in kept}.isdisjoint({q.video for q in held})
        assert split_held_out(held[:3], 0.3, 0)[1] == held[:3]
        assert 0.1 < len(held) / len(queries) < 0.5

    def test_too_few_queries_are_said(self, place):
        data = self.data(place)
        with pytest.raises(ConfigError, match="There are 3 training queries"):
            GroundingData(data.batcher, data.queries[:3], 20, 0)

    def test_a_memory_limit_changes_nothing(self, place):
        store = FeatureStore(place / "store")
        none, all_ = VideoFeatures(store, 0), VideoFeatures(store)
        assert torch.equal(none("untrimmed_00001").values, all_("untrimmed_00001").values)
        assert not none._held and all_._held


class TestWords:
    def test_two_hundred_words_are_cut_and_unknown_ones_marked(self):
        text = VocabularyText(Vocabulary.of(["a person waves"]), 10)
        words = text.encode(["a zebra " + "waves " * 200])
        assert words.values.shape == (1, 10)
        assert words.values[0, :3].tolist() == [4, 1, 6]
        assert text.unknown("A zebra waves, naïvely.") == ("zebra", "naïvely")
        assert text.shown("A person's wave!") == ("a", "persons", "wave")
        assert [text.left_out(words) for words in ("waves " * 10, "waves " * 200)] == [0, 190]

    def test_a_query_without_words_is_refused(self):
        with pytest.raises(AnnotationError, match="has no word"):
            VocabularyText(Vocabulary.of(["a b"]), 10).encode(["a", "?!"])

    def test_a_language_model_gives_vectors_of_word_pieces(self, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "transformers", fake_transformers())
        text = read_encoder(tmp_path, max_words=3)
        words = text.encode(["one two", "one two three four"])
        assert words.known.tolist() == [[True, True, False], [True, True, True]]
        assert words.values[0, 0].tolist() == [3, 3, 3, 3] and words.values[0, 2].tolist() == [0] * 4
        assert text.shown("one two three four") == ("one", "two", "three")
        assert text.left_out("one two three four") == 1

    def test_punctuation_is_no_word_for_a_language_model_either(self, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "transformers", fake_transformers())
        with pytest.raises(AnnotationError, match=r"'\.\.\.' has no word"):
            read_encoder(tmp_path, max_words=3).encode(["one", "..."])

    def test_a_tokenizer_without_its_words_is_refused(self, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "transformers", fake_transformers(vocabulary=30522))
        with pytest.raises(ConfigError, match="tokenizer knows 6 word pieces, the model 30522"):
            read_encoder(tmp_path, 3)

    def test_a_sentence_longer_than_the_language_model_takes_is_cut(self, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "transformers", fake_transformers(positions=8))
        assert read_encoder(tmp_path, 3).tokenizer.model_max_length == 6

    def test_damaged_weights_of_a_language_model_are_explained(self, monkeypatch, tmp_path):
        (tmp_path / "model.safetensors").write_bytes(b"cut")
        module = fake_transformers()
        module.AutoModel.from_pretrained = lambda path, **_: load_file(Path(path) / "model.safetensors")
        monkeypatch.setitem(sys.modules, "transformers", module)
        with pytest.raises(ConfigError, match="holds no model that transformers can read"):
            read_encoder(tmp_path, 3)

    def test_without_the_extra_the_message_says_what_to_install(self, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(ConfigError, match=r"uptal\[text\]"):
            read_encoder(tmp_path, 3)

    def test_nothing_is_downloaded_for_a_name(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "transformers", fake_transformers())
        with pytest.raises(ConfigError, match="no such folder"):
            read_encoder("sentence-transformers/all-MiniLM-L6-v2", 3)


def fake_transformers(vocabulary: int = 6, positions: int = 512) -> types.ModuleType:
    """A tokenizer that counts letters between marks 1 and 2, and a model that repeats the number."""
    module = types.ModuleType("transformers")
    module.utils = types.SimpleNamespace(logging=types.SimpleNamespace(disable_progress_bar=lambda: None))  # type: ignore[attr-defined]

    class Tokenizer:
        model_max_length = 10**30

        def __len__(self):
            return 6

        def __call__(self, sentences, **_):
            rows = [[1, *(len(word) for word in s.split()), 2] for s in sentences]
            most = max(map(len, rows))
            padded = torch.tensor([row + [0] * (most - len(row)) for row in rows])
            return {"input_ids": padded, "attention_mask": (padded > 0).long(),
                    "special_tokens_mask": torch.isin(padded, torch.tensor([0, 1, 2])).long()}  # fmt: skip

        def convert_ids_to_tokens(self, ids):
            return [{3: "one", 4: "four", 5: "three"}[i] if n != 1 else "two" for n, i in enumerate(ids)]

    class Model:
        config = types.SimpleNamespace(hidden_size=4, vocab_size=vocabulary, max_position_embeddings=positions)

        def eval(self):
            return self

        def __call__(self, input_ids, attention_mask):
            return types.SimpleNamespace(last_hidden_state=input_ids[..., None].expand(-1, -1, 4).float())

    module.AutoTokenizer = types.SimpleNamespace(from_pretrained=lambda *_, **__: Tokenizer())  # type: ignore[attr-defined]
    module.AutoModel = types.SimpleNamespace(from_pretrained=lambda *_, **__: Model())  # type: ignore[attr-defined]
    return module


class TestCandidates:
    def test_the_first_is_the_networks_own_answer_untouched(self):
        found = candidates((9.0, 3.0), np.full(10, 0.1), 8.0, 5)
        assert found.segments[0].tolist() == [9.0, 3.0]
        assert found.scores[0] == 1

    def test_attention_elsewhere_becomes_the_second(self):
        attention = np.full(20, 0.005)
        attention[12:16] = 0.2
        found = candidates((1.0, 3.0), attention / attention.sum(), 20.0, 5)
        assert found.segments[1].tolist() == [12.0, 16.0]
        assert 0 < found.scores[1] < 1
        assert (np.diff(found.scores) <= 0).all()

    def test_even_attention_is_no_reason_for_another(self):
        assert len(candidates((1.0, 3.0), np.full(10, 0.1), 10.0, 5)) == 1


class TestBest:
    def test_only_a_higher_value_replaces_it(self, tmp_path):
        path = tmp_path / "best.safetensors"
        values = [save_best(path, v, e, {"w": torch.full((1,), v)}) for e, v in enumerate((0.2, 0.2, 0.4, 0.3))]
        assert values == [True, False, True, False]
        assert best_facts(path) == (0.4, 2)

    def test_a_damaged_file_is_named(self, tmp_path):
        (tmp_path / "best.safetensors").write_bytes(b"no")
        with pytest.raises(CheckpointError, match=r"best\.safetensors"):
            best_facts(tmp_path / "best.safetensors")


class TestRun:
    def test_the_choice_and_the_last_epoch_are_both_on_record(self, place):
        record = json.loads((place / "run" / "selection.json").read_text())
        assert record["select"] == "held-out" and "held-out training videos" in record["rule"]
        assert record["queries"]["held_out"] > 0
        for name in ("held_out", "test"):
            assert set(record[name]) == {"selected", "last"}
            assert set(record[name]["last"]["R@1"]) == {"0.1", "0.3", "0.5", "0.7"}
        best = max(json.loads(line)["val_accuracy"] for line in (place / "run" / "log.jsonl").read_text().splitlines()
                   if "val_accuracy" in line)  # fmt: skip
        assert record["held_out"]["selected"]["R@1"]["0.5"] == pytest.approx(best, abs=1e-6)  # float32 against float64

    def test_selection_on_the_test_set_says_so_and_needs_one(self, place, tmp_path):
        cfg = settings(select="test")
        with pytest.raises(ConfigError, match="--test FILE"):
            train_grounder(cfg, place / "store", place / "queries.csv", tmp_path / "run")
        train_grounder(cfg, place / "store", place / "queries.csv", tmp_path / "run", test=place / "test.csv")
        record = json.loads((tmp_path / "run" / "selection.json").read_text())
        assert "ON THE TEST SET" in record["rule"]
        assert record["queries"]["held_out"] == 0

    def test_the_folder_alone_answers_as_the_network_did(self, place, tmp_path):
        shutil.copytree(place / "run", tmp_path / "moved")
        grounder = load_grounder(tmp_path / "moved")
        store = FeatureStore(place / "store")
        queries = read_queries(place / "test.csv")
        found = answer(grounder.model, grounder.batcher(VideoFeatures(store)), queries, store)
        hits = np.mean([_tiou(q, each.segments[0]) for q, each in zip(queries, found, strict=True) if each])
        record = json.loads((place / "run" / "selection.json").read_text())
        assert record["test"]["selected"]["mIoU"] == pytest.approx(hits)
        last = load_grounder(tmp_path / "moved", last=True)
        assert last.settings == grounder.settings

    def test_damage_is_noticed(self, place, tmp_path):
        shutil.copytree(place / "run", tmp_path / "run")
        (tmp_path / "run" / "grounder.safetensors").write_bytes(b"none")
        with pytest.raises(CheckpointError, match="damaged"):
            load_grounder(tmp_path / "run")

    def test_a_killed_run_goes_on_with_the_same_weights(self, place, tmp_path):
        cfg = settings()
        for steps in (3, None):
            part = replace(cfg, optim=replace(cfg.optim, max_steps=steps))
            train_grounder(part, place / "store", place / "queries.csv", tmp_path / "run", test=place / "test.csv")
        one, other = (load_grounder(path, last=True).model.state_dict() for path in (tmp_path / "run", place / "run"))
        assert all(torch.equal(one[key], other[key]) for key in one)

    def test_word_vectors_are_kept_as_they_are_unless_told(self, place, tmp_path):
        np.savez(
            tmp_path / "v.npz", words=np.array(["claps", "zebra", "kicks"]), vectors=np.eye(3, 6, dtype=np.float32)
        )
        text = recipes.TextConfig(kind="vectors", vectors=str(tmp_path / "v.npz"), max_words=12)
        train_grounder(settings(text=text, select="last"), place / "store", place / "queries.csv", tmp_path / "run")
        grounder = load_grounder(tmp_path / "run")
        assert isinstance(grounder.text, VocabularyText)
        ids = grounder.text.vocabulary.ids
        table = grounder.model.query_enc.embedding.weight
        assert table[ids["zebra"]].tolist() == [0, 1, 0, 0, 0, 0]
        assert not table[ids["then"]].any()

    def test_videos_without_features_are_counted(self, place, tmp_path, capsys):
        shutil.copytree(place / "store", tmp_path / "store")
        (tmp_path / "store" / "untrimmed_00002.safetensors").unlink()
        asked = read_questions(place / "queries.csv", FeatureStore(tmp_path / "store"))
        assert asked.missing == ["untrimmed_00002"]
        assert "1 videos without features (untrimmed_00002)" in asked.describe("queries")
        shutil.rmtree(tmp_path / "store")
        FeatureStore.create(tmp_path / "store", {"encoder_digest": "x", "width": 8})
        with pytest.raises(AnnotationError, match="none of the videos has features"):
            read_questions(place / "queries.csv", FeatureStore(tmp_path / "store"))


def _tiou(query: Query, segment: np.ndarray) -> float:
    inside = min(query.end, segment[1]) - max(query.start, segment[0])
    return max(0.0, inside / (max(query.end, segment[1]) - min(query.start, segment[0])))


class TestCommands:
    def test_train_predict_evaluate(self, place, tmp_path, capsys):
        words = ["--features", str(place / "store"), "--annotations", str(place / "queries.csv")]
        small = ["--recipe", "small", "--optim.max_steps", "2", "--lgi.lstm_width", "8", "--lgi.num_segments", "20"]
        assert uptal(["train", "lgi", *words, "--run", str(tmp_path / "run"), *small]) == 0
        assert "held-out" in capsys.readouterr().out
        out = tmp_path / "found.jsonl"
        assert uptal(["predict", str(tmp_path / "run"), *words, "--subset", "validation", "--out", str(out)]) == 0
        answers = read_groundings(out)
        assert len(answers) == len(read_queries(place / "queries.csv", "validation"))
        assert all(1 <= len(each.found) <= 5 for each in answers)
        json_out = tmp_path / "scores.json"
        truth = ["--truth", str(place / "test.csv"), "--found", str(out), "--json", str(json_out)]
        assert uptal(["evaluate", "grounding", *truth, "--protocol", "charades-sta"]) == 0
        record = json.loads(json_out.read_text())
        assert set(record["R@1"]) == {"0.1", "0.3", "0.5", "0.7"} and 0 <= record["mIoU"] <= 1
        assert record["R@5"]["0.3"] >= record["R@1"]["0.3"]
        assert record["videos"] == {"truth": 24, "found": 24, "missing": 0}

    def test_missing_videos_count_both_ways(self, place, tmp_path):
        queries = read_queries(place / "test.csv")
        gone = queries[0].video
        lines = [{"video": q.video, "sentence": q.sentence, "segments": [[q.start, q.end]], "scores": [1]}
                 for q in queries if q.video != gone]  # fmt: skip
        found = tmp_path / "found.jsonl"
        found.write_text("".join(json.dumps(line) + "\n" for line in lines))
        words = ["--truth", str(place / "test.csv"), "--found", str(found), "--json", str(tmp_path / "s.json")]
        assert uptal(["evaluate", "grounding", *words]) == 0
        record = json.loads((tmp_path / "s.json").read_text())
        assert record["without_missing_videos"]["mIoU"] == 1.0
        assert record["mIoU"] == pytest.approx(len(lines) / len(queries))
        assert record["missing_videos"] == [gone] and record["protocol"] == "charades-sta"

    def test_a_protocol_of_another_task_is_refused(self, place, capsys):
        words = ["--truth", str(place / "test.csv"), "--found", "x"]
        assert uptal(["evaluate", "grounding", *words, "--protocol", "thumos14"]) == 1
        assert "does not score grounding" in capsys.readouterr().err

    def test_predict_needs_sentences(self, place, capsys):
        words = ["--features", str(place / "store"), "--out", "x.jsonl"]
        assert uptal(["predict", str(place / "run"), *words]) == 1
        assert "answers sentences" in capsys.readouterr().err
        assert uptal(["predict", str(place / "run"), *words, "--annotations", "x.csv", "--top-classes", "1"]) == 1
        assert "knows no classes" in capsys.readouterr().err

    def test_predict_runs_where_it_is_told_to(self, place, tmp_path, capsys, monkeypatch):
        words = ["--features", str(place / "store"), "--annotations", str(place / "test.csv")]
        words = ["predict", str(place / "run"), *words, "--out", str(tmp_path / "x.jsonl")]
        assert uptal([*words, "--device", "gpu"]) == 1
        assert "gpu" in capsys.readouterr().err and not (tmp_path / "x.jsonl").exists()
        moved = []
        monkeypatch.setattr(LGI, "to", lambda model, device: moved.append(device) or model)
        assert uptal([*words, "--device", "cpu"]) == 0
        assert moved == [torch.device("cpu")]

    def test_features_of_another_encoder_are_refused(self, place, tmp_path, capsys):
        description = json.loads((place / "store" / "store.json").read_text())
        FeatureStore.create(tmp_path / "other", description | {"encoder_digest": "other"})
        words = ["--features", str(tmp_path / "other"), "--annotations", str(place / "test.csv"), "--out", "x.jsonl"]
        assert uptal(["predict", str(place / "run"), *words]) == 1
        assert "encoder_digest" in capsys.readouterr().err


def test_published_recipes_have_the_published_sizes():
    cfg = recipes.charades()
    model = LGI(replace(cfg.lgi, vocabulary=1111))
    assert sum(p.numel() for p in model.parameters()) == 33_809_655
    assert (cfg.optim.lr, cfg.optim.batch, cfg.optim.epochs, cfg.text.max_words) == (4e-4, 100, 500, 10)
    captions = recipes.captions()
    assert (captions.lgi.num_phrases, captions.text.max_words, captions.lgi.dqa_lambda) == (5, 25, 0.2)
    assert recipes.no_query_attention(cfg).lgi.num_phrases == 1
    assert recipes.no_distinct_queries(cfg).lgi.dqa_weight == 0
    assert math.isclose(cfg.optim.lr_batch, cfg.optim.batch)
