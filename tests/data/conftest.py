"""Writers of the public formats, by hand: independent of the writer in keyseg."""

import json
import pickle
from pathlib import Path

import pytest
from PIL import Image

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def samples():
    """Folder of real samples of the public formats; they are not part of the project."""
    if not SAMPLES.is_dir():
        pytest.skip(f"no real samples of the public formats in {SAMPLES}")
    return SAMPLES


class ReferFolder:
    """A refer_seg folder: 8 x 10 images, one annotation and one ref each, to be changed."""

    height, width = 8, 10

    def __init__(self, root: Path) -> None:
        self.root = root
        square = [1, 1, 4, 1, 4, 4, 1, 4]
        self.images = [
            {"id": n, "file_name": f"COCO_train2014_{n:012}.jpg", "height": 8, "width": 10}
            for n in (7, 8, 9)
        ]
        self.annotations = [
            {
                "id": 100 + n,
                "image_id": n,
                "category_id": 18,
                "iscrowd": 0,
                "area": 9.0,
                "segmentation": [square],
            }
            for n in (7, 8, 9)
        ]
        self.refs = [
            {
                "ref_id": 1000 + n,
                "ann_id": 100 + n,
                "category_id": 18,
                "image_id": n,
                "file_name": f"COCO_train2014_{n:012}_{100 + n}.jpg",
                "split": split,
                "sent_ids": [2 * n, 2 * n + 1],
                "sentences": [
                    {"sent": "left dog", "sent_id": 2 * n, "raw": "Left dog", "tokens": []},
                    {"sent": "the brown dog on a sofa", "sent_id": 2 * n + 1, "raw": ""},
                ],
            }
            for n, split in ((7, "train"), (8, "train"), (9, "testA"))
        ]

    @property
    def image_folder(self) -> Path:
        return self.root / "images/mscoco/images/train2014"

    def write(self, dataset: str = "refcoco", split_by: str = "unc", protocol: int = 2) -> Path:
        folder = self.root / dataset
        folder.mkdir(parents=True, exist_ok=True)
        self.image_folder.mkdir(parents=True, exist_ok=True)
        for image in self.images:
            picture = Image.new("RGB", (image["width"], image["height"]))
            picture.save(self.image_folder / image["file_name"])
        content = {
            "images": self.images,
            "annotations": self.annotations,
            "categories": [{"id": 18, "name": "dog", "supercategory": "animal"}],
        }
        (folder / "instances.json").write_text(json.dumps(content))
        (folder / f"refs({split_by}).p").write_bytes(pickle.dumps(self.refs, protocol=protocol))
        return self.root


class ReasonFolder:
    """A reason_seg folder, empty; `add` writes one image with its annotation."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.keywords: list[dict[str, object]] = []

    def add(
        self,
        name: str,
        texts: list[str],
        shapes: list[dict[str, object]] | None,
        split: str = "train",
        size: tuple[int, int] = (20, 12),
        encoding: str = "utf-8",
        **more: object,
    ) -> Path:
        folder = self.root / "ReasonSeg" / split
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(folder / f"{name}.jpg")
        content: dict[str, object] = {"text": texts, "is_sentence": False, **more}
        if shapes is not None:
            content["shapes"] = shapes
        text = json.dumps(content, ensure_ascii=False)
        (folder / f"{name}.json").write_bytes(text.encode(encoding))
        return folder

    def write_keywords(self) -> Path:
        file = self.root / "ReasonSeg" / "explanatory_key" / "keyword_outputs.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(self.keywords))
        return file


@pytest.fixture
def refer_folder(tmp_path):
    return ReferFolder(tmp_path / "refer seg's")


@pytest.fixture
def reason_folder(tmp_path):
    return ReasonFolder(tmp_path / "reason seg's")
