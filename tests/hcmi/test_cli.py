import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from hcmi import cli


@pytest.fixture
def verb(monkeypatch):
    """Adds the verb `probe`; its `run` does what the test sets."""
    module = SimpleNamespace(
        __doc__="Explains the probe.",
        add_arguments=lambda parser: parser.add_argument("--number", type=int, default=0),
        run=lambda arguments: arguments.number,
    )
    monkeypatch.setitem(sys.modules, "hcmi.commands.probe", module)
    monkeypatch.setitem(cli.VERBS, "probe", "a probe")
    monkeypatch.delenv("HCMI_DEBUG", raising=False)
    return module


def raising(error):
    def run(_):
        raise error

    return run


def exit_status(*argv):
    with pytest.raises(SystemExit) as exit_info:
        cli.main(list(argv))
    return exit_info.value.code


def test_the_verbs_status_is_the_exit_status(verb):
    assert cli.main(["probe"]) == 0
    assert cli.main(["probe", "--number", "7"]) == 7


def test_help_names_every_verb_without_importing_any(monkeypatch, capsys):
    monkeypatch.setitem(cli.VERBS, "ghost", "a verb without a module")
    assert exit_status("--help") == 0
    out = capsys.readouterr().out
    for name, line in cli.VERBS.items():
        assert name in out and line in out


def test_a_verbs_help_is_its_modules_own(verb, capsys):
    assert exit_status("probe", "--help") == 0
    out = capsys.readouterr().out
    assert "Explains the probe." in out and "--number" in out


@pytest.mark.parametrize("argv", [["prob"], [], ["probe", "--nonsense"], ["probe", "--number", "x"]])
def test_wrong_usage_ends_with_2(verb, argv, capsys):
    assert exit_status(*argv) == 2
    assert "error" in capsys.readouterr().err


def test_an_unknown_verb_is_named_beside_the_known_ones(capsys):
    assert exit_status("evla") == 2
    err = capsys.readouterr().err
    assert "evla" in err and all(name in err for name in cli.VERBS)


def test_version(capsys):
    assert exit_status("--version") == 0
    assert capsys.readouterr().out.startswith("hcmi ")


@pytest.mark.parametrize("error", [ValueError("bad\n  value"), OSError("bad value"), FileNotFoundError("bad value")])
def test_an_error_is_one_line(verb, error, capsys):
    verb.run = raising(error)
    assert cli.main(["probe"]) == 1
    assert capsys.readouterr().err == "hcmi probe: error: bad value\n"


def test_an_error_without_words_is_named(verb, capsys):
    verb.run = raising(ValueError())
    assert cli.main(["probe"]) == 1
    assert capsys.readouterr().err == "hcmi probe: error: ValueError\n"


@pytest.mark.parametrize("argv", [["--debug", "probe"], ["probe", "--debug"]])
def test_debug_shows_the_traceback(verb, argv, capsys):
    verb.run = raising(ValueError("bad value"))
    assert cli.main(argv) == 1
    assert "Traceback" in capsys.readouterr().err


def test_the_environment_switches_debug_on(verb, monkeypatch, capsys):
    monkeypatch.setenv("HCMI_DEBUG", "1")
    verb.run = raising(ValueError("bad value"))
    assert cli.main(["probe"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_our_own_bugs_are_not_hidden(verb):
    verb.run = raising(KeyError("bug"))
    with pytest.raises(KeyError):
        cli.main(["probe"])


def test_ctrl_c_is_quiet(verb, capsys):
    verb.run = raising(KeyboardInterrupt())
    assert cli.main(["probe"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_leaves_is_no_error():
    program = (
        "import sys, types; from hcmi import cli\n"
        "module = types.ModuleType('hcmi.commands.probe')\n"
        "module.add_arguments = lambda parser: None\n"
        "module.run = lambda arguments: print('x' * 10_000_000) or 0\n"
        "sys.modules['hcmi.commands.probe'] = module; cli.VERBS['probe'] = 'a probe'\n"
        "sys.exit(cli.main(['probe']))"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.read(1) == b"x"
    process.stdout.close()
    assert (process.wait(60), process.stderr.read()) == (1, b"")
    process.stderr.close()


def test_the_help_does_not_import_torch():
    program = (
        "import sys; from hcmi.cli import main\n"
        "try: main(['eval', '--help'])\n"
        "except SystemExit: assert 'torch' not in sys.modules and 'datasets' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL, env=dict(os.environ), timeout=60
    )
