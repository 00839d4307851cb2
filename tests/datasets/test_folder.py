"""Folders and tables of pictures as people have them, in one line."""

import json
import re
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sklearn_mm.datasets import load_folder
from sklearn_mm.exceptions import ImageReadWarning

CAPTIONS = [("1.jpg", "a dog"), ("2.jpg", "a cat, asleep"), ("1.jpg", "it barks"), ("3.jpg", "two birds")]
NESTED = [["a dog", "it barks"], ["a cat, asleep"], ["two birds"]]
IDS = ["1.jpg", "2.jpg", "3.jpg"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Make ``photos/1.jpg`` to ``photos/3.jpg`` below the working directory."""
    (tmp_path / "photos").mkdir()
    for number, name in enumerate(IDS):
        Image.new("RGB", (8, 8), (80 * number, 0, 0)).save(tmp_path / "photos" / name)
    monkeypatch.chdir(tmp_path)
    return Path("photos")


def load(table=None, **options):
    return load_folder("photos", table, **{"verbose": 0, **options})


def write(name, text, **options):
    Path(name).write_text(text, **{"encoding": "utf-8", **options})
    return name


def csv_of(rows, header="image,caption"):
    return "\n".join([header, *(f'{name},"{text}"' for name, text in rows)]) + "\n"


# Forms ------------------------------------------------------------------------------------------------------------


def _forms():
    rows = [{"image": name, "caption": text} for name, text in CAPTIONS]
    pictures = [{"id": 10 + number, "file_name": name} for number, name in enumerate(IDS)]
    annotations = [{"image_id": 10 + IDS.index(name), "caption": text} for name, text in CAPTIONS]
    karpathy = [
        {"filename": name, "split": "train", "sentences": [{"raw": text} for text in own]}
        for name, own in zip(IDS, NESTED, strict=True)
    ]
    return {
        "commas.csv": csv_of(CAPTIONS),
        "marked.csv": "\ufeff" + csv_of(CAPTIONS).replace("\n", "\r\n"),
        "unquoted.csv": "image,caption\n" + "".join(f"{name},{text}\n" for name, text in CAPTIONS),
        "semicolons.csv": csv_of(CAPTIONS).replace(",", ";").replace("cat;", "cat,"),
        "tabs.tsv": "file\tsentence\n" + "".join(f"{name}\t{text}\n" for name, text in CAPTIONS),
        "bars.csv": "image_name| comment_number| comment\n" + "".join(f"{n}| 0| {text}\n" for n, text in CAPTIONS),
        "tokens.txt": "".join(f"{name}#{row}\t{text}\n" for row, (name, text) in enumerate(CAPTIONS)),
        "headless.csv": csv_of(CAPTIONS).partition("\n")[2],
        "rows.jsonl": "\n".join(map(json.dumps, rows)),
        "nested.jsonl": "\n".join(json.dumps({"path": n, "captions": own}) for n, own in zip(IDS, NESTED, strict=True)),
        "numbered.csv": "image,caption_1,caption_2\n1.jpg,a dog,it barks\n2.jpg,'a cat, asleep',\n".replace("'", '"')
        + "3.jpg,two birds,\n",
        "printed.csv": "image,captions\n" + "".join(f'{n},"{own}"\n' for n, own in zip(IDS, NESTED, strict=True)),
        "coco.json": json.dumps({"images": pictures, "annotations": annotations}),
        "karpathy.json": json.dumps({"images": karpathy}),
        "records.json": json.dumps(rows),
        "mapping.json": json.dumps(dict(zip(IDS, NESTED, strict=True))),
    }


@pytest.mark.parametrize("name", _forms())
def test_every_form_of_a_table_gives_one_row_a_picture(folder, name):
    data = load(write(name, _forms()[name]))
    assert data.ids == IDS
    assert data.images == [str(folder / name) for name in IDS]
    assert data.captions == NESTED
    assert data.dropped == []
    assert len(data.metadata) == 3


def test_a_table_of_excel_in_utf_16_is_read(folder):
    assert (
        load(
            write("excel.txt", csv_of(CAPTIONS).replace(",", "\t").replace("cat\t", "cat,"), encoding="utf-16")
        ).captions
        == NESTED
    )


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_frames_are_tables(folder, library):
    module = pytest.importorskip(library)
    columns = {"image": [name for name, _ in CAPTIONS], "caption": [text for _, text in CAPTIONS]}
    frame = module.table(columns) if library == "pyarrow" else module.DataFrame(columns)
    assert load(frame).captions == NESTED


def test_parquet_is_read(folder):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"image": IDS, "captions": NESTED, "year": [1, 2, 3]}), "rows.parquet")
    data = load("rows.parquet")
    assert (data.captions, list(data.metadata.year)) == (NESTED, [1, 2, 3])


def test_a_table_in_the_folder_of_pictures_is_found_there(folder):
    write(folder / "captions.csv", csv_of(CAPTIONS))
    assert load("captions.csv").captions == NESTED


def test_quoted_cells_may_have_quotes_and_breaks_of_lines_inside(folder):
    data = load(write("rows.csv", 'image,caption\n1.jpg,"a ""big"" dog\nin snow"\n2.jpg,a\u2028cat\n'))
    assert data.captions == [['a "big" dog\nin snow'], ["a\u2028cat"]]


def test_tabs_do_without_quotes(folder):
    data = load(write("rows.tsv", 'image\tcaption\n1.jpg\t"Sit," she says\n2.jpg\ta 5" cat\n'))
    assert data.captions == [['"Sit," she says'], ['a 5" cat']]


# A folder alone ---------------------------------------------------------------------------------------------------


def test_a_folder_alone_is_described_by_the_files_beside_pictures_and_by_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "sea").mkdir(parents=True)
    for name in ("a_dog-in snow 2.jpg", "IMG_0001.jpg", "sea/DSC0002.JPG", "sea/._dsc0002.jpg", "sea/notes.pdf"):
        Image.new("RGB", (4, 4)).save(tmp_path / "photos" / name, format="JPEG")
    write("photos/IMG_0001.txt", "a red boat\n\nit sails\n")
    with pytest.warns(ImageReadWarning, match="1 of 3 .*DSC0002.JPG.*nor its name says anything"):
        data = load()
    assert data.ids == ["IMG_0001.jpg", "a_dog-in snow 2.jpg"]
    assert data.captions == [["a red boat", "it sails"], ["a dog in snow 2"]]
    assert load(text=False).ids == ["IMG_0001.jpg", "a_dog-in snow 2.jpg", "sea/DSC0002.JPG"]


def test_names_that_say_nothing_are_no_captions(folder):
    with pytest.raises(ValueError, match=r"say nothing \(1.jpg, 2.jpg, 3.jpg, ...\).*text=False"):
        load()
    assert "captions" not in load(text=False)


# Labels, tags and the rest ----------------------------------------------------------------------------------------


def test_labels_in_one_cell_are_split_as_their_parts_recur(folder):
    name = write("labels.csv", 'file,tags\n1.jpg,"dog, snow"\n2.jpg,"cat"\n3.jpg,"snow, bird"\n')
    data = load(name)
    assert data.target == [["dog", "snow"], ["cat"], ["snow", "bird"]]
    assert data.columns == {"image": "file", "labels": "tags"}
    assert "captions" not in data
    assert load(name, sep=None).target[0] == ["dog, snow"]
    assert load(write("x.csv", "file,label\n1.jpg,a/b\n2.jpg,a\n"), sep="/").target == [["a", "b"], ["a"]]


def test_a_picture_may_have_no_labels_and_a_row_for_each(folder):
    data = load(write("labels.csv", "file,label\n1.jpg,dog\n2.jpg,\n1.jpg,snow\n1.jpg,dog\n"))
    assert data.target == [["dog", "snow"], []]


def test_objects_of_coco_are_labels(folder):
    content = {
        "images": [{"id": n, "file_name": name, "width": 8} for n, name in enumerate(IDS)],
        "annotations": [{"image_id": 0, "category_id": 5}, {"image_id": 0, "category_id": 5}],
        "categories": [{"id": 5, "name": "dog"}],
    }
    data = load(write("instances.json", json.dumps(content)))
    assert data.target == [["dog"], [], []]
    assert list(data.metadata.width) == [8, 8, 8]


def test_columns_of_0_and_1_are_labels_by_their_names(folder):
    name = write("onehot.csv", "file,dog,snow,year\n1.jpg,1,0,2020\n2.jpg,0,0,2021\n3.jpg,1,1,2022\n")
    data = load(name, labels=["dog", "snow"])
    assert data.target == [["dog"], [], ["dog", "snow"]]
    assert data.metadata.to_dict("list") == {"year": [2020, 2021, 2022]}


def test_beside_captions_a_category_is_known_unless_it_is_asked_for(folder):
    name = write("shop.csv", "image,caption,category,tags\n1.jpg,a dog,pets,x\n2.jpg,a cat,pets,y\n")
    data = load(name)
    assert list(data.metadata.category) == ["pets", "pets"]
    assert "target" not in data
    data = load(name, labels="category", tags="tags")
    assert (data.target, data.tags) == ([["pets"], ["pets"]], [["x"], ["y"]])
    assert list(data.metadata) == []


def test_metadata_are_typed_and_of_pictures(folder):
    text = "image,caption,n,price,code,note\n1.jpg,a dog,0,1.5,007,\n1.jpg,it barks,1,1.5,007,\n2.jpg,a cat,0,,011,x\n"
    data = load(write("rows.csv", text))
    assert list(data.metadata) == ["price", "code", "note"]  # n is of captions
    assert data.metadata.query("price > 1").index.tolist() == [0]
    assert list(data.metadata.code) == ["007", "011"]
    assert "rows of one picture differ: 'n'" in data.DESCR


def test_the_split_of_a_table_is_kept_and_a_picture_is_of_one_part(folder):
    rows = "image,caption,split\n1.jpg,a dog,train\n1.jpg,it barks,train\n2.jpg,a cat,{}\n3.jpg,a bird,test\n"
    assert load(write("rows.csv", rows.format("val"))).split.tolist() == ["train", "val", "test"]
    with pytest.raises(ValueError, match=r"1.jpg is in the parts 'train' \(line 2\) and 'test' \(line 3\)"):
        load(write("rows.csv", rows.format("val").replace("barks,train", "barks,test")))


# Where pictures are -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cell",
    ["1.jpg", "./1.jpg", "photos/1.jpg", "1", "/kaggle/input/Images/1.jpg", r"C:\photos\1.jpg", "1.JPG", " 1.jpg "],
)
def test_paths_of_other_places_and_bare_names_are_found(folder, cell):
    assert load(write("rows.csv", f"image,caption\n{cell},a dog\n")).ids == ["1.jpg"]


def test_pictures_in_folders_below_and_beside_the_table_are_found(folder):
    (folder / "1.jpg").rename(folder / "one.jpg")
    for below in ("photos/sub", "lists/own"):
        Path(below).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(f"{below}/1.jpg")
    table = write("lists/rows.csv", "image,caption\n1.jpg,a dog\nown/1.jpg,a cat\n")
    data = load(table)
    assert data.ids == ["sub/1.jpg", str(Path("lists/own/1.jpg"))]


def test_a_name_that_two_files_have_is_left_out(folder):
    for below in ("a", "b"):
        (folder / below).mkdir()
        Image.new("RGB", (4, 4)).save(folder / below / "9.jpg")
    with pytest.warns(ImageReadWarning, match="2 files may be meant: a/9.jpg, b/9.jpg"):
        assert load(write("rows.csv", "image,caption\n9.jpg,a dog\n1.jpg,a cat\n")).ids == ["1.jpg"]


def test_names_in_another_form_of_unicode_are_found(folder):
    (folder / "1.jpg").rename(folder / unicodedata.normalize("NFD", "café.jpg"))
    assert load(write("rows.csv", "image,caption\ncafé.jpg,a dog\n")).captions == [["a dog"]]


def test_missing_and_broken_pictures_go_with_their_captions_and_are_told(folder):
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "2.jpg")
    (folder / "2.jpg").write_bytes((folder / "2.jpg").read_bytes()[:2000])
    rows = [*CAPTIONS, ("4.jpg", "gone"), ("4.jpg", "away"), ("http://x/5.jpg", "far"), ("3.jpg", "")]
    table = write("rows.csv", csv_of(rows))
    with pytest.warns(
        ImageReadWarning, match=re.escape(f"3 of 5 pictures are left out, looked for in {folder.absolute()}")
    ):
        data = load(table)
    assert (data.ids, data.captions) == (["1.jpg", "3.jpg"], [NESTED[0], NESTED[2]])
    assert [(row, Path(path).name) for row, path, _ in data.dropped] == [(1, "2.jpg"), (4, "4.jpg"), (6, "5.jpg")]
    assert [reason.split(",")[0].split(":")[0] for *_, reason in data.dropped][1:] == ["no such file", "an address"]
    with pytest.warns(ImageReadWarning, match="row of line 6 .4.jpg.: no such file"):
        assert load(table, check="headers").ids == IDS  # a header tells no damage


@pytest.mark.slow  # a process of its own
def test_pictures_that_are_not_opened_load_no_torch(folder):
    write("rows.csv", csv_of(CAPTIONS))
    code = (
        "import sys; from sklearn_mm.datasets import load_folder; "
        "load_folder('photos', 'rows.csv', check=False, verbose=0); print('torch' in sys.modules)"
    )
    env = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=env)
    assert done.stdout.strip() == "False", done.stderr


# What is said -----------------------------------------------------------------------------------------------------


def test_the_guess_is_said(folder, capsys):
    data = load(write("rows.csv", csv_of(CAPTIONS)), verbose=1)
    said = capsys.readouterr().err
    assert "3 pictures of photos, of 4 rows of rows.csv: image='image', guessed; text='caption', guessed" in said
    assert data.columns == {"image": "image", "text": "caption"}


@pytest.mark.parametrize(
    ("header", "row", "options", "message"),
    [
        ("name,words", "x,y", {}, r"no column of pictures in rows.csv; its columns are 'name', 'words'.*image='...'"),
        ("image,words", "1.jpg,y", {}, r"no column of captions or labels .* text=False"),
        ("image,caption", "1.jpg,y", {"text": "captoin"}, r"no column 'captoin' \(text=.*did you mean 'caption'"),
        ("image,caption,text", "1.jpg,y,z", {}, r"'caption', 'text' of rows.csv may be the captions; name one: text="),
        ("image,image", "1.jpg,y", {}, r"line 1: several columns have the name 'image'"),
        ("image,year,caption,n", "1.jpg,y,a dog, yes,2", {}, r"line 2: expected 4 cells .* got 5"),
        ("image,caption", '1.jpg,"a dog', {}, r"line 2: unexpected end of data"),
        ("file,path,caption", "1.jpg,2.jpg,a dog", {}, r"'file', 'path' of rows.csv may be the pictures"),
        ("image,caption", "1.jpg,", {}, r"no picture of rows.csv is left|no column of captions"),
        ("image,caption", "1.jpg,y", {"sep": ""}, "sep must be"),
        ("image,caption", "1.jpg,y", {"check": "all"}, "check must be"),
    ],
)
def test_tables_that_leave_a_doubt_are_refused_with_the_way_out(folder, header, row, options, message):
    with pytest.raises(ValueError, match=message):
        load(write("rows.csv", f"{header}\n{row}\n"), **options)


def test_pictures_that_are_all_elsewhere_are_one_error_that_says_where_they_were_looked_for(folder):
    table = write("rows.csv", "image,caption\nx.jpg,a dog\ny.jpg,a cat\n")
    message = (
        rf"none of the 2 pictures .* is in {re.escape(str(folder.absolute()))}.*first is 'x.jpg' \(line 2\): no such"
    )
    with pytest.raises(FileNotFoundError, match=message):
        load(table)


def test_what_is_no_folder_no_table_or_no_column_is_refused(folder):
    with pytest.raises(FileNotFoundError, match="expected the folder of pictures, but nowhere"):
        load_folder("nowhere", verbose=0)
    with pytest.raises(FileNotFoundError, match="found no table 'no.csv', neither here"):
        load("no.csv")
    with pytest.raises(ValueError, match=r"got rows.xlsx; read it by pandas.read_excel"):
        load(write("rows.xlsx", "x"))
    with pytest.raises(ValueError, match="line 2: byte 0xe9 is no UTF-8.*latin-1"):
        Path("latin.csv").write_bytes("image,caption\n1.jpg,café\n".encode("latin-1"))
        load("latin.csv")
    with pytest.raises(TypeError, match="as a path .* or as a frame .* got a dict"):
        load({"image": IDS})
    with pytest.raises(ValueError, match="labels names a column, and there is no table"):
        load(labels="kind")
    Path("empty").mkdir()
    with pytest.raises(FileNotFoundError, match="found no pictures in .*empty"):
        load_folder("empty", verbose=0)
    for content, message in [("{}", "expected COCO"), ('{"images": [{}], "annotations": []}', "expected an 'id'")]:
        with pytest.raises(ValueError, match=message):
            load(write("x.json", content))
    with pytest.raises(ValueError, match="line 2: no JSON"):
        load(write("x.jsonl", '{"image": "1.jpg", "caption": "x"}\n{'))


def test_what_comes_out_goes_into_fit_splits_and_scorers(tmp_path, monkeypatch):
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    from sklearn_mm.retrieval import CorrelationRanker

    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    rows = []
    for number in range(24):
        colour = [(255, 0, 0), (0, 255, 0), (0, 0, 255)][number % 3]
        Image.new("RGB", (4, 4), colour).save(f"photos/{number}.png")
        rows += [(f"{number}.png", f"a {('red', 'green', 'blue')[number % 3]} {kind}") for kind in ("sheet", "wall")]
    data = load(write("rows.csv", csv_of(rows)))
    pixels = FunctionTransformer(lambda paths: np.stack([np.asarray(Image.open(path)).ravel() for path in paths]) / 255)
    pipe = make_pipeline(pixels, CorrelationRanker(n_components=3, random_state=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = cross_val_score(pipe, data.images, data.captions, cv=2)
    assert scores.shape == (2,)
