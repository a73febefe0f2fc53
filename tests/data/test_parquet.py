"""To Parquet and back, resumed, on the Hub, streamed."""

import os
import runpy
from dataclasses import replace
from pathlib import Path

import datasets
import huggingface_hub
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard

from helpers.annotation_files import make_ytvis, write
from vita_hf.cards.dataset import write_card
from vita_hf.data import parquet
from vita_hf.data.annotations import AnnotationError
from vita_hf.data.categories import CATEGORIES
from vita_hf.data.clips.streamed import stream_rows
from vita_hf.data.datasets import read_ytvis
from vita_hf.data.parquet import read_parquet, write_parquet
from vita_hf.data.schema import VIDEO_FEATURES

SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare_dataset.py"
NAMES = {0: "ball", 1: "wheel"}


@pytest.fixture
def content(tmp_path):
    return make_ytvis(tmp_path, videos=7, length=3)


@pytest.fixture
def dataset(content, tmp_path):
    path = write(tmp_path / "train.json", content)
    return read_ytvis(path, tmp_path / "frames", cache_dir=tmp_path / "cache")


def embedded(rows) -> list[dict]:
    """The rows as they should come back: bytes for paths."""
    expected = []
    for row in rows:
        frames = [{"path": os.path.basename(f["path"]), "bytes": Path(f["path"]).read_bytes()} for f in row["frames"]]
        expected.append({**row, "frames": frames})
    return expected


@pytest.fixture
def small_shards(dataset):
    """Bytes of about two videos."""
    return 2 * sum(os.path.getsize(f["path"]) for f in dataset.rows[0]["frames"]) + 200


@pytest.mark.parametrize("streaming", [False, True])
def test_round_trip(dataset, tmp_path, small_shards, streaming, monkeypatch):
    monkeypatch.setattr(parquet, "_ROW_GROUP_BYTES", 1)  # a row a group
    shards = write_parquet(dataset, tmp_path / "out", shard_bytes=small_shards)
    assert [shard.name for shard in shards] == [f"train-{i:05d}-of-00004.parquet" for i in range(4)]
    assert [pq.read_metadata(shard).num_rows for shard in shards] == [2, 2, 2, 1]
    assert pq.read_metadata(shards[0]).num_row_groups == 2
    back = read_parquet(tmp_path / "out", streaming=streaming, cache_dir=tmp_path / "cache")
    assert back.id2label == NAMES and back.name == "out"
    assert isinstance(back.rows, datasets.IterableDataset if streaming else datasets.Dataset)
    assert back.rows.features == VIDEO_FEATURES
    assert list(back.rows) == embedded(dataset.rows)


def test_plain_load_dataset_recovers_class_names(dataset, tmp_path):
    write_parquet(dataset, tmp_path / "out")
    files = str(tmp_path / "out/data/*.parquet")
    rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    label = rows.features["instances"].feature["label"]
    assert label.names == ["ball", "wheel"] and label.int2str(rows[0]["instances"][1]["label"]) == "wheel"


def test_folder_with_its_card_loads_by_its_splits(dataset, tmp_path):
    write_parquet(dataset, tmp_path / "out", "valid")
    write_parquet(dataset, tmp_path / "out", "train", shard_bytes=1)
    text = write_card(tmp_path / "out", "my data", "me/mine").read_text()
    assert text.count("| train | 7 | 7 |") == text.count("| valid | 7 | 1 |") == 1
    assert "2 classes: ball, wheel." in text and 'read_parquet("me/mine", split="train"' in text
    card = DatasetCard(text)
    assert card.data.task_categories == ["image-segmentation"] and "video-instance-segmentation" in card.data.tags
    splits = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 7, "valid": 7}
    # the way the Hub is read: by id, where read_parquet gets no folder
    stream = datasets.load_dataset(str(tmp_path / "out"), split="valid", streaming=True)
    assert stream.features["instances"].feature["label"].names == ["ball", "wheel"]


def test_hub_id(dataset, tmp_path, monkeypatch):
    """What is asked of `load_dataset` for an id that is no folder."""
    write_parquet(dataset, tmp_path / "out")
    write_card(tmp_path / "out", "my data")
    real, asked = datasets.load_dataset, []

    def load_dataset(path, **options):
        asked.append(path)
        return real(str(tmp_path / "out"), **options)

    monkeypatch.setattr(parquet, "load_dataset", load_dataset)
    for streaming in (True, False):
        back = read_parquet("me/mine", streaming=streaming, cache_dir=tmp_path / "cache")
        assert (back.name, back.id2label) == ("mine", NAMES)
        assert list(back.rows) == embedded(dataset.rows)
    assert set(asked) == {"me/mine"}


def test_interrupted_run_goes_on(dataset, tmp_path, small_shards, monkeypatch):
    whole = write_parquet(dataset, tmp_path / "whole", shard_bytes=small_shards)
    real, calls = parquet.embed_table_storage, []

    def stop_in_the_third(table):
        calls.append(table)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(table)

    monkeypatch.setattr(parquet, "embed_table_storage", stop_in_the_third)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        write_parquet(dataset, out, shard_bytes=small_shards)
    assert sorted(os.listdir(out / "data")) == [shard.name for shard in whole[:2]]  # whole ones, nothing else
    with pytest.raises(FileNotFoundError, match="2 of 4 shards of train"):
        read_parquet(out)
    before = [os.stat(out / "data" / shard.name).st_mtime_ns for shard in whole[:2]]
    shards = write_parquet(dataset, out, shard_bytes=small_shards)
    assert len(calls) == 5  # two more: the shards that were there were left alone
    assert [os.stat(shard).st_mtime_ns for shard in shards[:2]] == before
    assert [shard.read_bytes() for shard in shards] == [shard.read_bytes() for shard in whole]


def test_shards_of_different_data_do_not_mix(dataset, content, tmp_path):
    out = tmp_path / "out"
    write_parquet(dataset, out)
    with pytest.raises(FileExistsError, match=r"holds results of another run \(bounds differ\)"):
        write_parquet(dataset, out, shard_bytes=1)
    content["annotations"][0]["category_id"] = 5
    edited = read_ytvis(write(tmp_path / "b.json", content), tmp_path / "frames", cache_dir=tmp_path / "cache")
    with pytest.raises(FileExistsError, match=r"\(rows differ\)"):
        write_parquet(edited, out)
    content["categories"][0]["name"] = "hoop"
    other = read_ytvis(write(tmp_path / "c.json", content), tmp_path / "frames", cache_dir=tmp_path / "cache")
    with pytest.raises(ValueError, match="holds a split with other classes"):
        write_parquet(other, out, "valid")


def test_streamed_datasets_are_refused(dataset, tmp_path):
    with pytest.raises(ValueError, match="expected rows that are not streamed"):
        write_parquet(replace(dataset, rows=dataset.rows.to_iterable_dataset()), tmp_path / "out")


def test_missing_frames_stop_before_anything_is_written(dataset, tmp_path):
    (tmp_path / "frames/v3/00001.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 frames are missing, for example .*v3/00001.jpg \(video 3\)"):
        write_parquet(dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def secret(content, tmp_path):
    """Annotations whose first frame is a file beside the folder of images, by whatever name is given."""
    (tmp_path / "id_rsa").write_text("SECRET")

    def name_it(name):
        content["videos"][0]["file_names"][0] = name
        return write(tmp_path / "hostile.json", content)

    return name_it


@pytest.mark.parametrize("name", ["../id_rsa", "v1/../../id_rsa", "{}/id_rsa", "v1/link", "linked/id_rsa", "a\0b"])
def test_files_outside_the_folder_of_images_are_not_read(secret, prepare, tmp_path, capsys, name):
    (tmp_path / "frames/v1/link").symlink_to(tmp_path / "id_rsa")
    (tmp_path / "frames/linked").symlink_to(tmp_path)
    path = secret(name.format(tmp_path))
    own = ("--annotations", path, "--images", tmp_path / "frames", "--output", tmp_path / "out")
    message = r"hostile\.json, videos\[0\] \(video 1\), frame 0 \(.*(relative|leads out of)"
    with pytest.raises(SystemExit, match=message):
        prepare(*own)
    assert not (tmp_path / "out").exists()
    assert prepare(*own, "--skip-broken") == 0  # costs one video
    assert [row["video_id"] for row in read_parquet(tmp_path / "out", streaming=True).rows] == [2, 3, 4, 5, 6, 7]
    assert prepare(*own[:-2], "--check") == 1 and "1 frame-path" in capsys.readouterr().out


@pytest.mark.parametrize("options", [(), ("--follow-links",)])
def test_files_that_are_no_images_are_not_embedded(secret, prepare, tmp_path, options):
    (tmp_path / "id_rsa").rename(tmp_path / "frames/id_rsa")
    own = ("--annotations", secret("id_rsa"), "--images", tmp_path / "frames", "--output", tmp_path / "out")
    with pytest.raises(SystemExit, match=r"video 1, .*id_rsa: cannot be decoded as an image"):
        prepare(*own, *options)
    assert list((tmp_path / "out/data").iterdir()) == []


def test_links_below_the_folder_and_to_it_are_followed(content, tmp_path):
    (tmp_path / "frames").rename(tmp_path / "disk")
    (tmp_path / "frames").symlink_to("disk")
    (tmp_path / "disk/v1").rename(tmp_path / "disk/moved")
    (tmp_path / "disk/v1").symlink_to("moved")
    (tmp_path / "disk/v2").rename(tmp_path / "elsewhere")
    (tmp_path / "disk/v2").symlink_to(tmp_path / "elsewhere")
    path = write(tmp_path / "train.json", content)
    with pytest.raises(AnnotationError, match="is or passes a symbolic link that leads out of") as caught:
        read_ytvis(path, tmp_path / "frames", cache_dir=tmp_path / "cache")
    assert {problem.video_id for problem in caught.value.problems} == {2}
    dataset = read_ytvis(path, tmp_path / "frames", cache_dir=tmp_path / "cache", follow_links=True)
    write_parquet(dataset, tmp_path / "out")
    assert list(read_parquet(tmp_path / "out", streaming=True).rows) == embedded(dataset.rows)


def test_killed_runs_go_on(prepare, content, tmp_path):
    """What a killed run left is neither read nor uploaded, and removed later."""
    own = ("--annotations", write(tmp_path / "my.json", content), "--images", tmp_path / "frames")
    leftover = tmp_path / f"out/data/.{'0' * 32}.train-00000-of-00001.parquet"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"PAR1 cut off")
    assert prepare(*own, "--output", tmp_path / "out") == 0
    assert "| train | 7 | 1 |" in (tmp_path / "out/README.md").read_text() and leftover.exists()
    os.utime(leftover, (1, 1))
    assert prepare(*own, "--output", tmp_path / "out") == 0
    assert not leftover.exists()


@pytest.mark.parametrize("name", ["README.md", "data/train-00000-of-00001.parquet"])
def test_files_of_something_else_are_not_replaced(dataset, tmp_path, name):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=rf"{name} was not written by an earlier run: choose another"):
        write_parquet(dataset, tmp_path / "out")
    assert path.read_text() == "mine" and not (tmp_path / "out/.prepare-train.json").exists()


def test_reading_something_else(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no shards train-\*-of-\*\.parquet in"):
        read_parquet(tmp_path)
    (tmp_path / "data").mkdir()
    path = tmp_path / "data/train-00000-of-00001.parquet"
    datasets.Dataset.from_dict({"text": ["a"]}).to_parquet(path)
    with pytest.raises(ValueError, match=r"expected columns .*video_id"):
        read_parquet(tmp_path)
    row = {"video_id": 1, "height": 1, "width": 1, "frames": [], "instances": []}
    datasets.Dataset.from_list([row], features=VIDEO_FEATURES).to_parquet(path)
    with pytest.raises(ValueError, match=r"expected class names, a ClassLabel at instances\.label"):
        read_parquet(tmp_path)


def test_paths_in_foreign_shards_are_not_opened(dataset, tmp_path):
    """They could name any image on this machine."""
    features = VIDEO_FEATURES.copy()
    features["instances"].feature["label"] = datasets.ClassLabel(names=["ball", "wheel"])
    (tmp_path / "data").mkdir()
    table = dataset.rows.with_format("arrow")[:].replace_schema_metadata(features.arrow_schema.metadata)
    pq.write_table(table, tmp_path / "data/train-00000-of-00001.parquet")
    message = "expected frames with the bytes of their images; a foreign file's paths are not opened"
    with pytest.raises(ValueError, match=message):
        read_parquet(tmp_path, cache_dir=tmp_path / "cache")
    with pytest.raises(ValueError, match=rf"video \d: {message}"):
        next(stream_rows(read_parquet(tmp_path, streaming=True).rows, seed=0))


# ------------------------------------------------------------------------------------------------------- the script
@pytest.fixture
def prepare(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    script = runpy.run_path(str(SCRIPT))

    def prepare(*arguments) -> int:
        return script["main"]([str(argument) for argument in arguments])

    prepare.script = script
    return prepare


def test_script_on_own_data(prepare, content, tmp_path, capsys):
    path = write(tmp_path / "my.json", content)
    assert prepare("--annotations", path, "--images", tmp_path / "frames", "--output", tmp_path / "out") == 0
    assert f"7 videos in 1 shard in {tmp_path / 'out'}" in capsys.readouterr().out
    assert read_parquet(tmp_path / "out", cache_dir=tmp_path / "cache").id2label == NAMES
    assert (tmp_path / "out/README.md").read_text().startswith("---\n")


def test_script_on_a_known_layout(prepare, tmp_path):
    content = make_ytvis(tmp_path)
    (tmp_path / "root/ovis/annotations").mkdir(parents=True)
    os.rename(tmp_path / "frames", tmp_path / "root/ovis/train")
    content["categories"] = [{"id": key, "name": name} for key, name in enumerate(CATEGORIES["ovis"], 1)]
    write(tmp_path / "root/ovis/annotations/train.json", content)
    assert prepare("--dataset", "ovis", "--root", tmp_path / "root", "--output", tmp_path / "out") == 0
    back = read_parquet(tmp_path / "out", streaming=True)
    assert back.id2label[24] == "Vehical" and [i["label"] for i in next(iter(back.rows))["instances"]] == [1, 4]


def test_script_checks(prepare, content, tmp_path, capsys):
    path = write(tmp_path / "my.json", content)
    check = ("--annotations", path, "--images", tmp_path / "frames", "--check")
    assert prepare(*check) == 0
    assert f"{path}: 0 errors, 0 warnings" in capsys.readouterr().out
    (tmp_path / "frames/v1/00001.jpg").unlink()
    content["annotations"][3]["segmentations"] = [[[1, 2, 3]]] * 3
    write(path, content)
    assert prepare(*check) == 1
    printed = capsys.readouterr().out
    assert "error: " in printed and "videos[0] (video 1), frame 1 (v1/00001.jpg)" in printed
    assert f"{path}: 1 error, 3 warnings" in printed and "  3 polygon" in printed


def test_script_ends_with_the_reason(prepare, content, tmp_path):
    content["videos"][0]["length"] = 8
    path = write(tmp_path / "my.json", content)
    arguments = ("--annotations", path, "--images", tmp_path / "frames", "--output", tmp_path / "out")
    with pytest.raises(SystemExit, match=r"\(video 1\): `length` is 8, but it names 3 frames\n.*--skip-broken"):
        prepare(*arguments)
    assert prepare(*arguments, "--skip-broken") == 0
    with pytest.raises(SystemExit, match="no train split of coco below"):
        prepare("--dataset", "coco", "--root", tmp_path, "--output", tmp_path / "out")


def test_script_pushes_shards_and_card_only(prepare, content, tmp_path, monkeypatch):
    calls = []

    class Api:
        def create_repo(self, repo_id, **options):
            calls.append(("create", repo_id, options))

        def upload_folder(self, **options):
            calls.append(("upload", options))
            return type("Commit", (), {"repo_url": "https://hub/me/mine"})

    monkeypatch.setitem(prepare.script["prepare"].__globals__, "HfApi", Api)
    monkeypatch.setattr("vita_hf.hub.HfApi", Api)
    path = write(tmp_path / "my.json", content)
    own = ("--annotations", path, "--images", tmp_path / "frames", "--output", tmp_path / "out")
    assert prepare(*own, "--push-to-hub", "me/mine", "--private") == 0
    assert calls[0] == ("create", "me/mine", {"repo_type": "dataset", "private": True, "exist_ok": True})
    upload = calls[1][1]
    assert (upload["repo_id"], upload["repo_type"], upload["folder_path"]) == ("me/mine", "dataset", tmp_path / "out")
    assert upload["allow_patterns"] == ["README.md", "data/*"] and upload["ignore_patterns"] == ["data/.*"]

    nowhere = huggingface_hub.HfApi(endpoint="http://127.0.0.1:9", token="none")
    monkeypatch.setattr("vita_hf.hub.HfApi", lambda: nowhere)
    own = (*own[:-1], tmp_path / "nothing")
    with pytest.raises(SystemExit, match=r"--push-to-hub me/mine: .+"):
        prepare(*own, "--push-to-hub", "me/mine")
    assert not (tmp_path / "nothing").exists()  # before the work


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "one of the arguments --dataset --annotations is required"),
        (["--dataset", "ovis", "--check"], "--dataset: expected --root"),
        (["--annotations", "a.json", "--check"], "--annotations: expected --images"),
        (["--annotations", "a.json", "--images", "f"], "expected --output or --check"),
        (["--dataset", "ovis", "--root", "r", "--target", "ovis", "--check"], "--target: expected --dataset coco"),
        (["--dataset", "coco", "--root", "r", "--target", "ovis", "--check"], "--check: expected neither --target nor"),
        (["--dataset", "ovis", "--root", "r", "--output", "o", "--private"], "--private: expected --push-to-hub"),
    ],
)
def test_script_arguments(prepare, arguments, message, capsys):
    with pytest.raises(SystemExit):
        prepare(*arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("split", ["train-00000-of-00001", "train-small", "a b", "../x", "", "*", "..."])
def test_names_of_splits(dataset, tmp_path, split):
    with pytest.raises(ValueError, match="split: expected a name of letters, digits, underscores and dots, got "):
        write_parquet(dataset, tmp_path / "out", split)
    assert not (tmp_path / "out").exists()


def test_shards_of_a_split_with_a_longer_name_are_not_read(dataset, tmp_path):
    [shard] = write_parquet(dataset, tmp_path / "out")
    shard.rename(shard.with_name("train-small-00000-of-00001.parquet"))
    with pytest.raises(FileNotFoundError, match="no shards train-"):
        read_parquet(tmp_path / "out")


def test_foreign_shards_of_another_number(dataset, tmp_path):
    (tmp_path / "out" / "data").mkdir(parents=True)
    (tmp_path / "out" / "data" / "train-00000-of-00003.parquet").write_text("mine")
    with pytest.raises(FileExistsError, match=r"train-00000-of-00003\.parquet was not written by an earlier run"):
        write_parquet(dataset, tmp_path / "out")


def test_a_damaged_shard_is_named(dataset, tmp_path):
    [shard] = write_parquet(dataset, tmp_path / "out")
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"train-00000-of-00001\.parquet is damaged .*: remove it to make it again"):
        write_card(tmp_path / "out", "mine")
