"""The tables of docs/measured/configs.md, made of the descriptions of all values of configs/.

  python -m experiments.configs_page

Writes them between the page's two marks; tests/config/test_configs.py fails where the page is another.
"""

from pathlib import Path

from diffusion_jax import config as configs
from diffusion_jax.config import values
from diffusion_jax.core import files

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "measured" / "configs.md"
START, END = "<!-- made by experiments/configs_page.py -->\n", "<!-- end -->\n"


def tables() -> str:
    """A table a section: key, default, what it may be, what it is, and which configs have it."""
    paths = sorted((ROOT / "configs").glob("*.py"))
    holders: dict[tuple, list[str]] = {}
    for path in paths:
        for key, _, about in values.walk(configs.load(path).get_config()):
            holders.setdefault((key, about), []).append(path.stem)
    sections: dict[str, list[str]] = {}
    for (key, about), names in holders.items():
        where = "all" if len(names) == len(paths) else _fewest(names, [path.stem for path in paths])
        default = f"`{about.default!r}`"
        row = f"| `{key}` | {default} | {about.about} | {about.kind.says} | {where} |\n"
        sections.setdefault(key.rpartition(".")[0], []).append(row)
    head = "| key | default | what it is | what it may be | configs |\n|---|---|---|---|---|\n"
    return "\n".join(f"### {name or 'The whole run'}\n\n{head}{''.join(rows)}" for name, rows in sections.items())


def _fewest(names: list[str], everyone: list[str]) -> str:
    """These names, or all but the others, whichever is shorter."""
    others = [name for name in everyone if name not in names]
    return f"all but {_listed(others, everyone)}" if len(others) < len(names) else _listed(names, everyone)


def _listed(names: list[str], everyone: list[str]) -> str:
    """These names, those of a whole family (three or more that begin alike) as one: "swiss_roll*"."""
    for stem in everyone:
        family = [name for name in everyone if name.startswith(stem)]
        if len(family) > 2 and set(family) <= set(names):
            names = [name for name in names if name not in family[1:]]
            names[names.index(stem)] = f"{stem}*"
    return ", ".join(names)


def page() -> str:
    """The page as it is to be."""
    before, _, rest = PAGE.read_text().partition(START)
    return f"{before}{START}\n{tables()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    text = page()
    files.write(PAGE, lambda file: file.write(text.encode()))
