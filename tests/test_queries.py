"""Sentences with their intervals: every format, every oddity of official files, every slip with its file and line."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from uptal.annotations import (
    Answer,
    match_answers,
    read_durations,
    read_groundings,
    read_queries,
    write_groundings,
)
from uptal.errors import AnnotationError
from uptal.types import Detections, Query


def write(tmp_path, content: str, name: str = "file.txt"):
    path = tmp_path / name
    path.write_text(content, "utf-8")
    return path


def found(*segments: tuple[float, float]) -> Detections:
    return Detections(np.array(segments, np.float64).reshape(-1, 2), np.linspace(1, 0.5, len(segments)))


class TestCharades:
    def test_lines_become_queries_numbered_from_zero(self, tmp_path):
        path = write(
            tmp_path, "AO8RW 0.0 6.9##a person is putting a book on a shelf.\n\nY6R7T 20.8 30.0##person sits.\n"
        )
        first, second = read_queries(path, durations={"AO8RW": 30.0})
        assert (first.id, first.video, first.start, first.end, first.duration) == ("0", "AO8RW", 0.0, 6.9, 30.0)
        assert first.sentence == "a person is putting a book on a shelf."
        assert (second.id, second.place) == ("2", f"{path}, line 3")
        assert math.isnan(second.duration)

    def test_an_end_behind_the_video_is_kept(self, tmp_path):
        (query,) = read_queries(write(tmp_path, "A 1.0 31.5##he sits"), durations={"A": 30.0})
        assert query.end == 31.5

    def test_marks_inside_the_sentence_belong_to_it(self, tmp_path):
        (query,) = read_queries(write(tmp_path, "A 1 2##he presses ## twice"))
        assert query.sentence == "he presses ## twice"

    def test_a_long_and_a_foreign_sentence_are_kept_whole(self, tmp_path):
        long = " ".join(["word"] * 200)
        path = write(tmp_path, f"A 1 2##{long}\nB 1 2##Große Kinder öffnen eine Tür — schnell")
        assert [q.sentence for q in read_queries(path)] == [long, "Große Kinder öffnen eine Tür — schnell"]

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("A 5.0 2.0##he sits", "before its start"),
            ("A -1 2.0##he sits", "expected 0 or later"),
            ("A 1 2##", "has no word"),
            ("A 1 2## ...", "has no word"),
            ("A 1##he sits", "expected `VIDEO START END##sentence`"),
            ("A one 2##he sits", "expected seconds"),
            ("A 1 nan##he sits", "neither NaN nor infinite"),
            ("A 1 2 he sits", "expected `VIDEO START END##sentence`"),
        ],
    )
    def test_a_slip_is_named_with_file_and_line(self, tmp_path, line, words):
        path = write(tmp_path, f"A 1 2##he sits\n{line}\n")
        with pytest.raises(AnnotationError) as error:
            read_queries(path)
        assert f"{path}, line 2" in str(error.value)
        assert words in str(error.value)


class TestCaptions:
    def test_every_sentence_becomes_a_query(self, tmp_path):
        videos = {
            "v_a": {"duration": 20.0, "timestamps": [[0, 5], [4, 21.5]], "sentences": ["One waves.", " Two sit."]}
        }
        queries = read_queries(write(tmp_path, json.dumps(videos)))
        assert [(q.id, q.sentence, q.end, q.duration) for q in queries] == [
            ("0", "One waves.", 5.0, 20.0), ("1", "Two sit.", 21.5, 20.0),
        ]  # fmt: skip

    def test_inverted_intervals_of_the_official_file_stand_as_they_are(self, tmp_path):
        videos = {"v_a": {"duration": 70, "timestamps": [[61.29, 60.71]], "sentences": ["He grinds it."]}}
        (query,) = read_queries(write(tmp_path, json.dumps(videos)))
        assert query.start > query.end

    def test_unequal_lists_are_refused(self, tmp_path):
        videos = {"v_a": {"duration": 70, "timestamps": [[1, 2]], "sentences": ["a b", "c d"]}}
        with pytest.raises(AnnotationError, match="video 'v_a': found 1 timestamps and 2 sentences"):
            read_queries(write(tmp_path, json.dumps(videos)))

    def test_an_empty_sentence_is_named(self, tmp_path):
        videos = {"v_a": {"duration": 70, "timestamps": [[1, 2]], "sentences": [" "]}}
        with pytest.raises(AnnotationError, match=r"video 'v_a', sentences\[0\]: the query"):
            read_queries(write(tmp_path, json.dumps(videos)))


class TestTable:
    def test_columns_in_any_order_with_quoted_sentences(self, tmp_path):
        content = (
            'sentence,video,end,start,duration,subset\n"He sits, then waves.",a,4,1.5,10,training\nShe runs,b,,,,\n'
        )
        first, second = read_queries(write(tmp_path, content, "q.csv"))
        assert (first.sentence, first.start, first.end, first.duration) == ("He sits, then waves.", 1.5, 4.0, 10.0)
        assert first.located and not second.located

    def test_a_subset_is_chosen_and_a_wrong_one_named(self, tmp_path):
        path = write(tmp_path, "video,start,end,sentence,subset\na,1,2,he sits,training\nb,1,2,he runs,validation\n")
        assert [q.video for q in read_queries(path, "validation")] == ["b"]
        with pytest.raises(AnnotationError, match="the file has training, validation"):
            read_queries(path, "test")

    @pytest.mark.parametrize(
        ("row", "words"),
        [
            ("b,,2,he runs", "line 3, column 'start'"),
            ("b,5,2,he runs", "line 3.*before its start"),
            ("b,1,2, ?!", "line 3.*has no word"),
            ("b,1,inf,he runs", "line 3, column 'end'"),
        ],
    )
    def test_a_slip_is_named_with_its_line(self, tmp_path, row, words):
        path = write(tmp_path, f"video,start,end,sentence\na,1,2,he sits\n{row}\n")
        with pytest.raises(AnnotationError, match=words):
            read_queries(path)

    def test_marks_and_signs_of_all_kinds_stay_in_the_sentence(self, tmp_path):
        path = write(tmp_path, "video,start,end,sentence\na,1,2,er drückt ## zweimal — schnell\n")
        assert read_queries(path)[0].sentence == "er drückt ## zweimal — schnell"

    def test_another_table_is_refused(self, tmp_path):
        with pytest.raises(AnnotationError, match="missing: sentence"):
            read_queries(write(tmp_path, "video,start,end,label\na,1,2,x\n"))


def test_durations_come_from_either_kind_of_table(tmp_path):
    charades = write(tmp_path, 'id,subject,length\nA,"x;y",12.5\n', "c.csv")
    own = write(tmp_path, "video,duration\nA,12.5\n", "o.csv")
    assert read_durations(charades) == read_durations(own) == {"A": 12.5}
    with pytest.raises(AnnotationError, match="line 2, column 'length'"):
        read_durations(write(tmp_path, "id,length\nA,0\n"))


def test_official_files_are_read_whole(real_videos):
    charades = real_videos / "charades-sta"
    counts = []
    for split in ("train", "test"):
        seconds = read_durations(charades / f"Charades_v1_{split}.csv")
        queries = read_queries(charades / f"charades_sta_{split}.txt", durations=seconds)
        assert not any(math.isnan(q.duration) for q in queries)
        counts.append((len(queries), sum(q.end > q.duration for q in queries)))
    assert counts == [(12408, 1802), (3720, 562)]
    captions = read_queries(real_videos / "activitynet-captions" / "train.json")
    assert (len(captions), sum(q.start > q.end for q in captions)) == (37421, 2)


class TestAnswers:
    def test_what_was_written_is_read(self, tmp_path):
        answers = [Answer("a", "he sits – ö", found((1, 2), (3, 2))), Answer("b", "she runs", found())]
        write_groundings(tmp_path / "f.jsonl", answers)
        first = json.loads((tmp_path / "f.jsonl").read_text("utf-8").splitlines()[0])
        assert first == {"video": "a", "sentence": "he sits – ö", "segments": [[1, 2], [3, 2]], "scores": [1.0, 0.5]}
        back = read_groundings(tmp_path / "f.jsonl")
        assert [(a.video, a.sentence, a.found.segments.tolist()) for a in back] == [
            ("a", "he sits – ö", [[1, 2], [3, 2]]), ("b", "she runs", []),
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("{", "this is not JSON"),
            ('{"video": "a", "sentence": "b c", "segments": [[1]], "scores": [1]}', r"segments\[0\]"),
            ('{"video": "a", "sentence": "b c", "segments": [[1, 2]], "scores": []}', "as many of each"),
            ('{"video": "a", "segments": [], "scores": []}', "line 2, sentence"),
        ],
    )
    def test_a_bad_line_is_named(self, tmp_path, line, words):
        good = '{"video": "a", "sentence": "b c", "segments": [], "scores": []}'
        with pytest.raises(AnnotationError, match=words) as error:
            read_groundings(write(tmp_path, f"{good}\n{line}\n"))
        assert "line 2" in str(error.value)

    def test_numbers_that_are_none_are_not_written(self, tmp_path):
        with pytest.raises(AnnotationError, match="not a finite number"):
            write_groundings(tmp_path / "f.jsonl", [Answer("a", "he sits", found((math.nan, 2)))])
        assert not (tmp_path / "f.jsonl").exists()

    def test_answers_meet_their_queries_by_video_and_sentence(self):
        queries = [Query(id=str(i), video=v, sentence=s) for i, (v, s) in enumerate(
            [("a", "he sits"), ("a", "he  sits"), ("a", "he sits"), ("b", "he sits"), ("a", "he runs")])]  # fmt: skip
        one, two = found((0, 1)), found((2, 3))
        matched = match_answers(queries, [Answer("a", "he sits", one), Answer("a", "he sits", two)])
        assert matched == [one, two, two, None, None]
