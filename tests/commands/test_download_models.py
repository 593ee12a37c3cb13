"""Downloads of the official weights from a local server: complete, interrupted, wrong files, full disk."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from scripts import download_models
from scripts.downloads import transfer
from scripts.downloads.archives import locate_file, locate_tree
from scripts.downloads.failures import size_text
from tests.helpers import fake_web
from tests.helpers.fake_web import HTML, FakeWeb
from utils.core.errors import BadInput, StageFailure
from utils.weights.official_files import JOYGEN_ARCHIVE, OFFICIAL_FILES, ByHand, Drive, DriveFolder, Hub, Url

ROOT = Path(__file__).resolve().parents[2]
TINY = "/whisper/tiny.pt"
CONTENTS = {
    str(file.path): hashlib.shake_256(str(file.path).encode()).digest(3000 + 100 * number)
    for number, file in enumerate(OFFICIAL_FILES)
}
# The official table with the sizes and hashes of the small files that these tests serve.
SMALL_FILES = tuple(
    replace(
        file,
        sha256=file.sha256 and hashlib.sha256(CONTENTS[str(file.path)]).hexdigest()[: len(file.sha256)],
        size=file.size and len(CONTENTS[str(file.path)]),
    )
    for file in OFFICIAL_FILES
)
LARGE = 700_000  # bytes, more than one of gdown's blocks
FETCHED = [str(file.path) for file in SMALL_FILES if file.used]
# Runs the command with the small files' table, in an interpreter of its own.
KNOWN = json.dumps({str(file.path): (file.sha256, file.size) for file in SMALL_FILES})
DRIVER = f"""
import json
import signal
from dataclasses import replace
from scripts import download_models
from scripts.downloads import transfer
from utils.core import cli
known = json.loads({KNOWN!r})
transfer.WAIT = 0.0
download_models.OFFICIAL_FILES = tuple(
    replace(file, sha256=known[str(file.path)][0], size=known[str(file.path)][1])
    for file in download_models.OFFICIAL_FILES
)
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs are started with it ignored
cli.run(download_models.main)
"""


@pytest.fixture
def web(monkeypatch) -> Iterator[FakeWeb]:
    """A server with the whole tree."""
    monkeypatch.setattr(transfer, "WAIT", 0.0)
    monkeypatch.setattr(download_models, "OFFICIAL_FILES", SMALL_FILES)
    with fake_web.serve() as server:
        server.files = {f"/{path}": content for path, content in CONTENTS.items()}
        yield server


def download(web: FakeWeb, root: Path, *flags: str) -> None:
    download_models.main(["--mirror", web.url, "--dir", str(root), *flags])


def tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def start_command(*flags: str | Path, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, *map(str, flags)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    return subprocess.Popen(command, **{**pipes, **options})  # type: ignore[call-overload]


def test_everything_is_fetched_once_and_checked(web, tmp_path, capsys):
    download(web, tmp_path)
    built = {str(file.path) for file in SMALL_FILES if "BFM/BFM_model_front.mat" in file.unless}
    assert tree(tmp_path) == {path: CONTENTS[path] for path in FETCHED if path not in built}
    assert "present" in capsys.readouterr().out
    n_requests = len(web.asked)
    download(web, tmp_path)
    download(web, tmp_path, "--check")
    assert len(web.asked) == n_requests


def test_groups_and_unused_files(web, tmp_path):
    download(web, tmp_path, "--only", "whisper", "dwpose")
    assert set(tree(tmp_path)) == {"whisper/tiny.pt", "dwpose/dw-ll_ucoco_384.onnx"}
    download(web, tmp_path, "--only", "parsing", "--all")
    assert "face-parse-bisent/resnet18-5c106cde.pth" in tree(tmp_path)


def test_a_broken_connection_is_taken_up_again_at_once(web, tmp_path):
    web.plans[TINY] = [1000, 0, 500, "503"]
    download(web, tmp_path, "--only", "whisper")
    assert tree(tmp_path) == {"whisper/tiny.pt": CONTENTS["whisper/tiny.pt"]}
    assert web.ranges(TINY) == [None, "bytes=1000-", "bytes=1000-", "bytes=1500-", "bytes=1500-"]


@pytest.mark.parametrize("second", ["resumes", "ignores ranges", "has another version", "had sent everything"])
def test_the_next_run_takes_up_a_broken_download(web, tmp_path, second):
    content = CONTENTS["whisper/tiny.pt"]
    web.plans[TINY] = [1000, *[0] * (transfer.N_ATTEMPTS - 1)]
    with pytest.raises(StageFailure, match=r"1 of the downloads failed: whisper/tiny\.pt; run the command again"):
        download(web, tmp_path, "--only", "whisper")
    part = tmp_path / ".downloads/whisper/tiny.pt.part"
    assert part.read_bytes() == content[:1000]
    if second == "ignores ranges":
        web.plans[TINY] = ["whole"]
    elif second == "has another version":
        part.with_name("tiny.pt.part.tag").write_text('"another"')
    elif second == "had sent everything":
        part.write_bytes(content)
    n_before = len(web.asked)
    download(web, tmp_path, "--only", "whisper")
    assert tree(tmp_path) == {"whisper/tiny.pt": content}
    n_kept = len(content) if second == "had sent everything" else 1000
    assert [asked_range for _, asked_range in web.asked[n_before:]] == [f"bytes={n_kept}-"]


def test_a_part_that_is_longer_than_the_file_is_dropped(web, tmp_path):
    part = tmp_path / ".downloads/whisper/tiny.pt.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(10**6))
    download(web, tmp_path, "--only", "whisper")
    assert tree(tmp_path) == {"whisper/tiny.pt": CONTENTS["whisper/tiny.pt"]}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"x" * 3000, r"sha256 \w{64} instead of \w{64}"),
        (HTML, "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "a Git LFS pointer"),
        (b"", "nothing in it"),
    ],
)
def test_a_wrong_file_is_refused_and_replaces_nothing(web, tmp_path, capsys, content, found):
    web.files[TINY] = content
    mine = tmp_path / "whisper/tiny.pt"
    mine.parent.mkdir()
    mine.write_bytes(b"what I had")  # a wrong file is kept if the download is wrong too
    with pytest.raises(StageFailure, match="whisper"):
        download(web, tmp_path, "--only", "whisper", "dwpose")
    assert tree(tmp_path) == {
        "whisper/tiny.pt": b"what I had",
        "dwpose/dw-ll_ucoco_384.onnx": CONTENTS["dwpose/dw-ll_ucoco_384.onnx"],
    }
    assert_line(capsys.readouterr().err, "failed: whisper/tiny.pt", found)


def assert_line(text: str, start: str, *patterns: str) -> None:
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    for pattern in patterns:
        assert re.search(pattern, line), line


def test_damaged_files_are_replaced_and_sound_ones_kept(web, tmp_path):
    damaged, sound = tmp_path / "sd-vae-ft-mse/config.json", tmp_path / "joygen/config.json"
    for path, content in ((damaged, HTML), (sound, b"{}")):
        path.parent.mkdir()
        path.write_bytes(content)
    download(web, tmp_path, "--only", "vae", "unet")
    assert damaged.read_bytes() == CONTENTS["sd-vae-ft-mse/config.json"]
    assert sound.read_bytes() == b"{}"


def test_files_that_stand_in_are_not_fetched(web, tmp_path):
    other = tmp_path / "sd-vae-ft-mse/diffusion_pytorch_model.bin"
    other.parent.mkdir()
    other.write_bytes(b"weights")
    download(web, tmp_path, "--only", "vae")
    assert set(tree(tmp_path)) == {"sd-vae-ft-mse/config.json", "sd-vae-ft-mse/diffusion_pytorch_model.bin"}


def test_absent_files_are_named_and_the_others_come(web, tmp_path, capsys):
    absent = ("joygen/config.json", "face-parse-bisent/79999_iter.pth", "BFM/BFM_model_front.mat")
    for path in absent:
        del web.files[f"/{path}"]
    with pytest.raises(StageFailure, match=r"1 of the downloads failed: joygen/config\.json"):
        download(web, tmp_path)
    assert set(tree(tmp_path)) == set(FETCHED) - set(absent)
    errors = capsys.readouterr().err
    assert_line(errors, "failed: ", "joygen/config.json: the server answers 404 Not Found")
    assert "not there: face-parse-bisent/79999_iter.pth" in errors


def test_a_server_that_does_not_answer_is_asked_for_one_file_only(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(transfer, "WAIT", 0.0)
    with fake_web.serve() as server:
        url = server.url
    with pytest.raises(StageFailure, match="and others"):
        download_models.main(["--mirror", url, "--dir", str(tmp_path), "--only", "whisper", "unet", "vae"])
    errors = capsys.readouterr().err
    assert_line(errors, "failed: whisper/tiny.pt", "no connection: Connection refused")
    assert errors.count("127.0.0.1 does not answer") == 4
    assert tree(tmp_path) == {}


def test_a_file_that_does_not_fit_on_the_disk_stops_the_run(web, tmp_path, capsys):
    web.lengths[TINY] = 10**15
    with pytest.raises(StageFailure, match=r"no room for tiny\.pt\.part .*needs 1000\d* TB more, [\d.]+ \w?B free"):
        download(web, tmp_path)
    assert [path for path, _ in web.asked] == [TINY]
    assert "missing" in capsys.readouterr().out  # the table is printed nevertheless


def test_a_disk_that_fills_up_is_named_and_the_part_serves_later(web, tmp_path):
    web.files[TINY] = CONTENTS["whisper/tiny.pt"] * 1000  # 3 MB
    limit = 200_000

    def limit_file_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    flags = ("--mirror", web.url, "--dir", tmp_path, "--only", "whisper")
    process = start_command(*flags, preexec_fn=limit_file_size)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("error: no room for tiny.pt.part"), errors
    assert "needs 3.0 MB more" in errors
    assert len(errors.splitlines()) == 1
    assert (tmp_path / ".downloads/whisper/tiny.pt.part").stat().st_size == limit
    web.asked.clear()
    with pytest.raises(StageFailure):  # a wrong file, which is fetched completely
        download(web, tmp_path, "--only", "whisper")
    assert web.ranges(TINY) == [f"bytes={limit}-"]


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_can_be_taken_up(web, tmp_path, stop, code):
    name, content = "sd-vae-ft-mse/config.json", CONTENTS["sd-vae-ft-mse/config.json"] * 500
    web.files[f"/{name}"] = content
    web.plans[f"/{name}"] = ["stall"]
    process = start_command("--mirror", web.url, "--dir", tmp_path, "--only", "vae")
    part = tmp_path / ".downloads" / f"{name}.part"
    deadline = time.monotonic() + 30
    while not (part.is_file() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(stop)
    process.communicate(timeout=30)
    assert process.returncode == code
    n_kept = part.stat().st_size
    assert part.read_bytes() == content[:n_kept]
    web.go_on.set()
    download(web, tmp_path, "--only", "vae")
    assert tree(tmp_path)[name] == content
    assert web.ranges(f"/{name}") == [None, f"bytes={n_kept}-"]


def test_check_says_what_is_missing_and_asks_nobody(web, tmp_path, capsys):
    with pytest.raises(StageFailure, match="18 needed files are missing"):
        download(web, tmp_path, "--check")
    output = capsys.readouterr().out
    rows = [line.split() for line in output.splitlines() if line.startswith("  missing")]
    assert [row[1] for row in rows] == FETCHED
    assert "01_MorphableModel.mat is yours to get (Basel Face Model: non-commercial" in output
    assert "https://faces.dmi.unibas.ch/bfm/" in output
    assert web.asked == []
    assert list(tmp_path.iterdir()) == []


def test_check_sees_damage_and_stand_ins(web, tmp_path, capsys):
    for path in FETCHED:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(CONTENTS[path])
    (tmp_path / "BFM/Exp_Pca.bin").unlink()
    download(web, tmp_path, "--check")
    assert_line(capsys.readouterr().out, "  replaced", "BFM/Exp_Pca.bin .*BFM_model_front.mat serves")
    (tmp_path / "joygen/config.json").write_bytes(HTML)
    with pytest.raises(StageFailure, match=r"joygen/config\.json is missing"):
        download(web, tmp_path, "--check")
    assert_line(capsys.readouterr().out, "  damaged", "joygen/config.json .*an HTML page")


def test_wrong_arguments(tmp_path, capsys):
    for flags in (["--mirror", "ftp://x"], ["--only", "wings"]):
        with pytest.raises(SystemExit):
            download_models.parse(flags)
    assert "expected http" in capsys.readouterr().err
    with pytest.raises(BadInput, match=r"archive missing .*nowhere\.zip"):
        download_models.main(["--archive", str(tmp_path / "nowhere.zip")])
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot be written"):
        download_models.main(["--dir", str(tmp_path / "file" / "below")])


def test_it_runs_by_its_path_from_anywhere(tmp_path):
    command = ["bash", str(ROOT / "scripts" / "download_models.sh"), "--check", "--dir", "weights", "--only", "whisper"]
    (tmp_path / "utils").mkdir()  # modules of another project are not imported
    (tmp_path / "utils" / "__init__.py").write_text("raise ImportError")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
    )
    assert result.returncode == 1
    assert result.stderr == "error: whisper/tiny.pt is missing from weights\n"


# Archives


def packed(kind: str, contents: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    """An archive of the given files and symbolic links."""
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
            for name, target in (links or {}).items():
                info = zipfile.ZipInfo(name)
                info.external_attr = 0o120777 << 16
                archive.writestr(info, target)
    else:
        with tarfile.open(fileobj=stream, mode=f"w:{kind}") as archive:
            for name, content in contents.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            for name, target in (links or {}).items():
                info = tarfile.TarInfo(name)
                info.type, info.linkname = tarfile.SYMTYPE, target
                archive.addfile(info)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["zip", "gz", ""])
@pytest.mark.parametrize("folder", ["", "pretrained_models/", "pretrained_models/pretrained_models/"])
def test_an_archive_is_unpacked_however_it_is_nested(web, tmp_path, kind, folder):
    del web.files[TINY]  # only the archive has it
    listed = {path: content for path, content in CONTENTS.items() if not path.endswith(".onnx")}
    archive = tmp_path / "joygen_weights"
    archive.write_bytes(packed(kind, {f"{folder}{path}": content for path, content in listed.items()}))
    root, mine = tmp_path / "weights", tmp_path / "weights" / "joygen" / "config.json"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b'{"mine": true}')
    download(web, root, "--archive", str(archive))
    assert tree(root) == {**{path: CONTENTS[path] for path in FETCHED}, "joygen/config.json": b'{"mine": true}'}
    assert {path for path, _ in web.asked} == {"/dwpose/dw-ll_ucoco_384.onnx"}
    assert archive.is_file()


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_names_that_lead_out_and_links_are_left_alone(web, tmp_path, kind):
    contents = {
        "../whisper/tiny.pt": b"outside",
        "/whisper/tiny.pt": b"outside",
        "a/../../whisper/tiny.pt": b"outside",
        "tree/joygen/config.json": CONTENTS["joygen/config.json"],
        "tree/joygen/run_me.py": b"print()",
    }
    archive = tmp_path / "archive"
    archive.write_bytes(packed(kind, contents, {"tree/joygen/diffusion_pytorch_model.safetensors": "/etc/passwd"}))
    web.files.clear()
    with pytest.raises(StageFailure):
        download(web, tmp_path / "weights", "--only", "whisper", "unet", "--archive", str(archive))
    assert tree(tmp_path) == {
        "archive": archive.read_bytes(),
        "weights/joygen/config.json": CONTENTS["joygen/config.json"],
    }


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda _: HTML, "neither a zip nor a tar archive"),
        (lambda content: content[:200] + bytes(100) + content[300:], "damaged archive"),
        (lambda content: content[: len(content) // 2], "damaged archive|neither a zip nor a tar"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_a_damaged_archive_is_named_and_the_rest_comes_from_elsewhere(web, tmp_path, capsys, kind, spoil, message):
    archive = tmp_path / "archive"
    archive.write_bytes(spoil(packed(kind, {"whisper/tiny.pt": CONTENTS["whisper/tiny.pt"]})))
    with pytest.raises(StageFailure, match="the archive"):
        download(web, tmp_path / "weights", "--only", "whisper", "--archive", str(archive))
    assert tree(tmp_path / "weights") == {"whisper/tiny.pt": CONTENTS["whisper/tiny.pt"]}
    assert_line(capsys.readouterr().err, "failed: the archive", message)


def test_a_wrong_file_in_an_archive_is_left_out(web, tmp_path, capsys):
    archive = tmp_path / "archive"
    archive.write_bytes(packed("zip", {"whisper/tiny.pt": HTML}))
    download(web, tmp_path / "weights", "--only", "whisper", "--archive", str(archive))
    assert tree(tmp_path / "weights") == {"whisper/tiny.pt": CONTENTS["whisper/tiny.pt"]}
    assert "left out of the archive: whisper/tiny.pt: an HTML page" in capsys.readouterr().err


def test_where_a_wanted_file_is_in_an_archive():
    members = [PurePosixPath(name) for name in ("x/b/config.yaml", "a/config.yaml", "config.yaml", "x/y/a/config.yaml")]
    assert locate_file(members, PurePosixPath("m/a/config.yaml")) == PurePosixPath("a/config.yaml")
    assert locate_file(members, PurePosixPath("m/c/config.yaml")) == PurePosixPath("config.yaml")
    assert locate_file(members, PurePosixPath("m/a/other.yaml")) is None
    assert locate_tree(members, [PurePosixPath("other")]) == {}
    wanted = [PurePosixPath("a/config.yaml"), PurePosixPath("b/config.yaml")]
    assert locate_tree(members, wanted[1:]) == {wanted[1]: members[0]}


def test_sizes_are_written_as_people_say_them():
    numbers = (0, 994, 999_499, 44_900, 1_262_400_000, 5_000_000_000_000)
    assert [size_text(n) for n in numbers] == ["0 B", "994 B", "999 kB", "44.9 kB", "1.3 GB", "5.0 TB"]


# The real addresses, served by a local proxy


needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
HOSTS = [
    "openaipublic.azureedge.net", "huggingface.co", "drive.google.com", fake_web.DRIVE_CONTENT,
    "raw.githubusercontent.com", "download.pytorch.org",
]  # fmt: skip


@pytest.fixture
def internet(tmp_path) -> Iterator[tuple[FakeWeb, dict[str, str]]]:
    """A proxy that serves every source of the table, and the environment variables that select it."""
    with fake_web.serve() as server:
        certificate = fake_web.certify(server, tmp_path, HOSTS)
        publish(server)
        variables = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), server.url)
        variables |= {name: str(certificate) for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")}
        unwanted = ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "HF_ENDPOINT", "HF_HUB_OFFLINE")
        inherited = {name: value for name, value in os.environ.items() if name not in unwanted}
        yield server, {**inherited, **variables, "HOME": str(tmp_path)}


def publish(server: FakeWeb) -> None:
    """Serve every file of the table at its address."""
    archives: dict[str, dict[str, bytes]] = {}
    for file in SMALL_FILES:
        content = CONTENTS[str(file.path)]
        match file.source:
            case Url(url):
                server.files[url.removeprefix("https://")] = content
            case Hub(repository, name):
                server.files[f"huggingface.co/{repository}/resolve/main/{name}"] = content
            case Drive(file_id) if file.group in ("unet", "audio2motion"):
                inside = file.path if file.group == "unet" else file.path.relative_to("audio2motion")
                archives.setdefault(file_id, {})[str(inside)] = content
            case Drive(file_id):
                server.drive[file_id] = (file.path.name, content)
            case DriveFolder(folder_id):
                server.drive["f" * 30] = (file.path.name, content)
                server.drive["0" * 30] = (file.path.name, b"of another network")
                server.drive_folders[folder_id] = {"another": "a" * 30, file.path.parent.name: "b" * 30}
                server.drive_folders["a" * 30] = {file.path.name: "0" * 30}
                server.drive_folders["b" * 30] = {"notes.txt": "c" * 30, file.path.name: "f" * 30}
    for file_id, contents in archives.items():
        others = {"other/config.yaml": b"not this one", "other/weights": bytes(LARGE)}
        server.drive[file_id] = ("weights.tar", packed("", {**others, **contents}))


BY_HAND = {str(file.path) for file in SMALL_FILES if isinstance(file.source, ByHand)}


@needs_openssl
def test_every_source_of_the_table_gives_its_file(internet, tmp_path):
    server, environment = internet
    unet_id = next(file.source.file_id for file in SMALL_FILES if file.group == "unet")
    server.plans[unet_id] = [LARGE]  # a broken connection is retried
    root = tmp_path / "weights"
    process = start_command("--dir", root, "--all", env=environment)
    _, errors = process.communicate(timeout=100)
    assert tree(root) == {path: content for path, content in CONTENTS.items() if path not in BY_HAND}
    assert errors == f"error: BFM/01_MorphableModel.mat is missing from {root}\n"
    assert process.returncode == 1
    first, second = server.ranges(unet_id)
    assert first is None
    assert 0 < int(re.fullmatch(r"bytes=(\d+)-", second)[1]) <= LARGE
    assert not (tmp_path / "weights" / ".downloads").exists()


@needs_openssl
def test_what_goes_wrong_with_the_sources(internet, tmp_path):
    server, environment = internet
    unet_id = next(file.source.file_id for file in SMALL_FILES if file.group == "unet")
    index_id = next(file.source.file_id for file in SMALL_FILES if file.path.name.startswith("index_mp468"))
    server.drive[unet_id] = ("", fake_web.QUOTA_PAGE)
    server.drive[index_id] = ("index.npy", HTML)
    for name in ("std_exp.txt", "BFM_exp_idx.mat"):  # from the second source
        address = next(file.source.url for file in SMALL_FILES if file.path.name == name)
        del server.files[address.removeprefix("https://")]
        spare_id = next(file.sources[1].file_id for file in SMALL_FILES if file.path.name == name)
        server.drive[spare_id] = (name, CONTENTS[f"BFM/{name}"])
    del server.files["huggingface.co/stabilityai/sd-vae-ft-mse/resolve/main/config.json"]
    hub_file = "huggingface.co/stabilityai/sd-vae-ft-mse/resolve/main/diffusion_pytorch_model.safetensors"
    server.stated_hashes[hub_file] = "0" * 64
    root = tmp_path / "weights"
    process = start_command("--dir", root, "--only", "unet", "bfm", "vae", env=environment)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 1
    by_hand = rf"get the file by hand from https://drive\.google\.com/file/d/{unet_id} and put it at {root}/joygen/diff"
    assert_line(errors, "failed: joygen/diffusion", "quota for this file is used up, try again tomorrow", by_hand)
    assert_line(errors, "failed: joygen/config.json", "quota", "serves only beside the weights")
    assert_line(errors, "failed: BFM/index", "gives an HTML page")
    assert_line(errors, "failed: sd-vae-ft-mse/config.json", "the hub says: .*404")
    assert_line(errors, "failed: sd-vae-ft-mse/diffusion", r"sha256 \w{64} instead of 0{64}, as the hub states it")
    assert "5 of the downloads failed" in errors
    bfm = {str(file.path) for file in SMALL_FILES if file.group == "bfm" and file.used}
    assert set(tree(root)) == bfm - BY_HAND - {"BFM/index_mp468_from_mesh35709.npy"}


@needs_openssl
def test_joygens_archive_comes_from_google_drive(internet, tmp_path):
    server, environment = internet
    contents = {f"pretrained_models/pretrained_models/{path}": content for path, content in CONTENTS.items()}
    server.drive[JOYGEN_ARCHIVE.file_id] = ("pretrained_models.tar.gz", packed("gz", contents))
    root = tmp_path / "weights"
    process = start_command("--dir", root, "--archive", env=environment)
    _, errors = process.communicate(timeout=100)
    assert (process.returncode, errors) == (0, "")
    assert tree(root) == {path: CONTENTS[path] for path in FETCHED}
    assert {path for path, _ in server.asked} == {JOYGEN_ARCHIVE.file_id}


@needs_openssl
def test_an_unpacked_network_on_google_drive_gets_the_config_of_the_repository(internet, tmp_path):
    server, environment = internet
    weights = "joygen/diffusion_pytorch_model.safetensors"
    unet_id = next(file.source.file_id for file in SMALL_FILES if file.group == "unet")
    server.drive[unet_id] = ("diffusion_pytorch_model.safetensors", CONTENTS[weights])
    process = start_command("--dir", tmp_path / "weights", "--only", "unet", env=environment)
    _, errors = process.communicate(timeout=100)
    assert (process.returncode, errors) == (0, "")
    config = (ROOT / "config" / "unet.json").read_bytes()
    assert tree(tmp_path / "weights") == {weights: CONTENTS[weights], "joygen/config.json": config}
