"""tools/measure_pseudo_labels.py: an arm of the comparison, trained on labelled and on pseudo-labelled faces."""

from __future__ import annotations

from scripts import load_script
from tiny_training import HELDOUT, tiny_faces, tiny_recipe


def test_arms_have_as_many_steps_with_and_without_pseudo_labels(tmp_path):
    tool = load_script("tools/measure_pseudo_labels.py")
    faces = tiny_faces(tmp_path)
    heldout, labelled, pseudo = faces[:HELDOUT], faces[HELDOUT : HELDOUT + 16], faces[HELDOUT + 16 :]
    arms = {"labelled": {"mtfl": labelled}, "pseudo": {"mtfl": labelled, "table": pseudo}}
    for name, sets in arms.items():
        looked_at = dict.fromkeys(sets, heldout)
        model, found = tool.figures(tiny_recipe(), 8, sets, looked_at, tmp_path / "cache", tmp_path / name)
        assert model.is_file()
        assert list(found) == list(tool.FIGURES)
        rows = (tmp_path / name / "log.csv").read_text().splitlines()[1:]
        assert len(rows) == {"labelled": 4, "pseudo": 2}[name]  # epochs of two and of four batches of 8
