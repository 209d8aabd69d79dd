import dataclasses

import pytest
import yaml

from echosyn.data.phantom import PhantomConfig
from echosyn.runtime.config import Dataset, Params, build, read_yaml, setting
from echosyn.runtime.errors import EchosynError


@dataclasses.dataclass(frozen=True)
class Inner:
    width: int = setting(8, lo=1)


@dataclasses.dataclass(frozen=True)
class Knobs:
    rate: float = setting(1e-4, lo=0, hi=1)
    steps: int = setting(10, lo=1)
    objective: str = setting("flow", choices=("flow", "ddpm_v"))
    ema: bool = setting(True)
    channels: tuple[int, ...] = setting((8, 16), lo=1)
    pair: tuple[int, int] = setting((1, 2))
    inner: Inner = setting(Inner())
    counts: dict[str, int] | None = setting(None, lo=0)
    name: str | None = setting(None)

    def check(self):
        return "steps: must not be 13" if self.steps == 13 else None


@dataclasses.dataclass(frozen=True)
class Needed:
    path: str = setting()


def test_defaults_and_values():
    assert build(Knobs, None, "here") == Knobs()
    made = build(
        Knobs, {"rate": "1e-3", "channels": [4], "inner": {"width": 2}, "counts": {"a": 1}}, "x"
    )
    assert (made.rate, made.channels, made.inner.width, made.counts) == (1e-3, (4,), 2, {"a": 1})
    assert isinstance(build(Knobs, {"rate": 1}, "x").rate, float)
    assert build(Knobs, {"name": None}, "x").name is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepz": 3}, "unknown setting 'stepz'; did you mean 'steps'?"),
        ({"zzz": 3}, "unknown setting 'zzz'. Known settings: rate, steps"),
        ({"steps": "3"}, "steps: expected int, found '3'"),
        ({"steps": 3.5}, "steps: expected int, found 3.5"),
        ({"steps": True}, "steps: expected int, found True"),
        ({"steps": None}, "steps: expected int, found None"),
        ({"steps": 0}, "steps: 0 is below the least allowed value 1"),
        ({"steps": 13}, "steps: must not be 13"),
        ({"rate": 2}, "rate: 2.0 is above the greatest allowed value 1"),
        ({"rate": "fast"}, "rate: expected float, found 'fast'"),
        ({"rate": True}, "rate: expected float, found True"),
        ({"rate": float("nan")}, "rate: expected a finite number, found nan"),
        ({"rate": "inf"}, "rate: expected a finite number, found inf"),
        ({"objective": "flwo"}, "did you mean 'flow'?"),
        ({"ema": 1}, "ema: expected bool, found 1"),
        ({"channels": 8}, "channels: expected a list, found 8"),
        ({"channels": [8, 0]}, "channels: 0 is below"),
        ({"channels": [8, "a"]}, "channels: expected int, found 'a'"),
        ({"pair": [1]}, "pair: expected 2 values"),
        ({"inner": {"width": 0}}, "inner: width: 0 is below"),
        ({"inner": 3}, "inner: expected settings as 'key: value', found 3"),
        ({"counts": [1]}, "counts: expected 'key: value' pairs"),
        ({"counts": {"a": -1}}, "counts: -1 is below"),
        ({"counts": {"a": "b"}}, "counts.a: expected int, found 'b'"),
        ([1], "expected settings as 'key: value', found [1]"),
    ],
)
def test_refusals_name_the_key_and_the_value(values, message):
    with pytest.raises(EchosynError) as e:
        build(Knobs, values, "params.yaml: knobs")
    assert str(e.value).startswith("params.yaml: knobs")
    assert message in str(e.value)


def test_a_needed_setting():
    with pytest.raises(EchosynError, match="setting 'path' is missing"):
        build(Needed, {}, "here")


def test_a_setting_has_no_mutable_default():
    with pytest.raises(TypeError):
        setting([])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"role": "trian"}, "did you mean 'train'"),
        ({"source": "zip"}, "source: 'zip' is not one of"),
        ({"label": "case"}, "label: 'case' is not one of ef, class, none"),
        ({"splits": {"train": 3}}, "'train' is not one of TRAIN, VAL, TEST"),
        ({"splits": {"TRAIN": -3}}, "splits: -3 is below"),
    ],
)
def test_dataset_entries(entry, message):
    good = {"role": "train", "source": "echonet", "path": "data/raw/x"}
    assert build(Dataset, good, "x").label == "ef"
    with pytest.raises(EchosynError, match=message):
        build(Dataset, {**good, **entry}, "params.yaml: datasets.x")


def project(tmp_path, params, conf=None):
    (tmp_path / "params.yaml").write_text(params)
    (tmp_path / "conf" / "demo").mkdir(parents=True)
    if conf is not None:
        (tmp_path / "conf" / "demo" / "release.yaml").write_text(conf)
    return tmp_path


def test_conf_and_params_make_a_stage(tmp_path):
    root = project(tmp_path, "scale: demo\nseed: 3\nrelease: {steps: 5}\n", "rate: 0.5\n")
    params = Params(root)
    made = params.stage("release", Knobs)
    assert (params.seed, made.steps, made.rate) == (3, 5, 0.5)


@pytest.mark.parametrize(
    ("params", "conf", "message"),
    [
        ("scale: demo\nreleaze: {}\n", None, "unknown section 'releaze'; did you mean 'release'?"),
        ("scale: huge\n", None, "scale: 'huge' is not one of smoke, demo, study, paper"),
        ("seed: 1\n", None, "scale: 'None'"),
        ("scale: demo\nseed: -1\n", None, "seed: -1"),
        ("scale: demo\nseed: x\n", None, "seed: 'x'"),
        ("scale: demo\nrelease: {steps: 5}\n", "steps: 6\n", "'steps' is set both in"),
        ("scale: demo\nrelease: 5\n", None, "release: expected 'key: value', found 5"),
        ("scale: demo\nrelease: {stepz: 5}\n", None, "did you mean 'steps'"),
        ("scale: [\n", None, "not valid YAML"),
        ("- a\n", None, "expected a mapping"),
    ],
)
def test_refuses_a_project(tmp_path, params, conf, message):
    root = project(tmp_path, params, conf)
    with pytest.raises(EchosynError) as e:
        Params(root).stage("release", Knobs)
    assert message in str(e.value)


def test_datasets_of_a_project(tmp_path):
    root = project(
        tmp_path, "scale: demo\ndatasets: {a: {role: guest, source: dicom, path: p, label: none}}\n"
    )
    assert Params(root).dataset("a").role == "guest"
    with pytest.raises(EchosynError, match="no 'b' under datasets; known: a"):
        Params(root).dataset("b")


def test_datasets_must_be_a_mapping(tmp_path):
    root = project(tmp_path, "scale: demo\ndatasets: [a]\n")
    with pytest.raises(EchosynError, match="datasets: expected 'name: settings'"):
        Params(root).dataset("a")


def test_missing_and_empty_yaml(tmp_path):
    with pytest.raises(EchosynError, match="does not exist"):
        read_yaml(tmp_path / "no.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert read_yaml(tmp_path / "empty.yaml") == {}


def test_an_entry_replaces_what_conf_says(tmp_path):
    (tmp_path / "conf/demo").mkdir(parents=True)
    (tmp_path / "conf/demo/phantom.yaml").write_text("train: 4\nval: 2\ntest: 2\n")
    sections = {"phantoms": {"plain": {}, "wide": {"train": 9}, "odd": 3}, "scale": "demo"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(sections))
    params = Params(tmp_path)
    assert params.named("phantom", "phantoms", "plain", PhantomConfig).train == 4
    assert params.named("phantom", "phantoms", "wide", PhantomConfig).train == 9
    with pytest.raises(EchosynError, match="no 'narrow' under phantoms; known: odd, plain, wide"):
        params.named("phantom", "phantoms", "narrow", PhantomConfig)
    with pytest.raises(EchosynError, match=r"phantoms\.odd: expected 'key: value', found 3"):
        params.named("phantom", "phantoms", "odd", PhantomConfig)
    with pytest.raises(EchosynError, match="no 'phantom' under datasets; known: none"):
        params.dataset("phantom")


def test_a_datasets_options_are_its_sources(tmp_path):
    entry = {"role": "train", "source": "table", "path": "x", "label": "class",
             "options": {"columns": {"file": "Path"}, "decimal": ","}}  # fmt: skip
    found = build(Dataset, entry, "here")
    assert found.options == {"columns": {"file": "Path"}, "decimal": ","}
    assert found.max_rejects == 0
    with pytest.raises(EchosynError, match=r"source: 'tables' is not one of .*did you mean"):
        build(Dataset, {**entry, "source": "tables"}, "here")
