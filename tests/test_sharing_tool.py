"""tools/sharing.py: counts that can be worked out by hand."""

from functools import partial

from scripts import ROOT, run_script

RECIPES = ROOT / "tools" / "recipes"
BODY, HEADS = 77236, 2121  # of TCDCN, counted in test_models.py
# Outputs times filters, by layer: 36*36*16*25, 16*16*48*16*9, 6*6*64*48*9, 2*2*64*64*4, then 256*100.
BODY_MACS = 1296 * 16 * 25 + 256 * 48 * 16 * 9 + 36 * 64 * 48 * 9 + 4 * 64 * 64 * 4 + 256 * 100
HEAD_MACS = 100 * (10 + 2 + 2 + 2 + 5)


run = partial(run_script, "tools/sharing.py")


def test_the_table_holds_every_way_with_its_counts(monkeypatch, capsys):
    assert run(monkeypatch, RECIPES / "tcdcn.toml") == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines[2:]]
    found = {name: tuple(int(cell.replace(",", "")) for cell in cells) for name, *cells in rows}
    assert found["hard"] == (BODY + HEADS, BODY, BODY_MACS + HEAD_MACS)
    apart = (5 * BODY + HEADS, 0, 5 * BODY_MACS + HEAD_MACS)
    assert [found[name] for name in ("separate", "soft_mean", "soft_pairwise", "soft_group", "soft_trace")] == [
        apart
    ] * 5
    biases = 16 + 48 + 64 + 64 + 100
    assert found["soft_dirty"][0] == 5 * (2 * BODY - biases) + HEADS  # each weight is two
    mixtures = 25 * (16 + 48 + 64 + 64 + 100)
    assert found["cross_stitch"][:2] == (5 * BODY + mixtures + HEADS, 5 * BODY + mixtures)
    gates = 5 * (64 * 2 * 2 * 4 + 4)
    assert found["mmoe"][:2] == (BODY + 3 * 25700 + gates + HEADS, BODY + 3 * 25700)


def test_what_is_wrong_is_said_in_one_sentence(monkeypatch, capsys):
    assert run(monkeypatch, RECIPES / "tcdcn-single.toml") == 2
    assert "needs two tasks or more" in capsys.readouterr().err.splitlines()[-1]
