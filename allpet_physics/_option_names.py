"""Messages of the library, which name Python arguments, in the words of a command line, which has options."""

import re

import click

#: Arguments of the library whose option has another name.
_ALIASES = {"n_subsets": "subsets", "n_iterations": "iterations", "image_shape": "image_size", "n_trues": "trues",
            "n_blocks": "blocks", "name": "roi_name"}


def at_the_shell(text: str, command: click.Command) -> str:
    """Return a message with the arguments of the library replaced by the options of a command.

    Names with an underscore are replaced wherever they stand as whole words, not inside a file's name; names that are
    also English words (label, frame) only where they can be nothing else: as the subject of the sentence, or with a
    value (``frame=0``).
    """
    options = {p.name: next((o for o in p.opts if o.startswith("--")), p.opts[0]) for p in command.params
               if isinstance(p, click.Option)}
    options |= {alias: options[name] for alias, name in _ALIASES.items() if name in options}
    arguments = {p.name: p.name.upper() for p in command.params if isinstance(p, click.Argument)}

    def assigned(found):
        name, value = found.groups()
        if name not in options:
            return found[0]
        return options[name] if value == "True" else f"{options[name]} {value.strip(chr(34))}"

    text = re.sub(r"\bread_\w+\((?:path|\.\.\.), ([^()]*)\)", r"\1", text)
    text = re.sub(r'(?<![\w./-])(\w+)=(True|"[^"]*"|\d[\w.]*)', assigned, text)
    if "roi_name" in options:
        text = re.sub(r"\blabel (or|and) name\b", rf"{options['label']} \1 {options['roi_name']}", text)
        text = re.sub(r"\b(give|with) label\b", rf"\1 {options['label']}", text)
    if "threshold" in options:
        text = re.sub(r"^value must\b", f"the value of {options['threshold']} must", text)
    subject = re.match(r"(\w+)(?= (?:must|belongs|chooses|cannot)\b)", text)
    if subject:
        known = options | arguments
        text = known.get(subject[1], subject[1]) + text[subject.end():]
    text = re.sub(r"(?<![\w./'\"-])([a-z]\w*_\w+)(?![\w=(/'\"-]|\.\w)", lambda m: options.get(m[1], m[1]), text)
    return re.sub(r"(--[\w-]+) \(\1\)", r"\1", text)
