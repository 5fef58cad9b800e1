"""HTML from jinja2 templates. What is put into a template is escaped, unless the template says `|safe`."""

import functools

import jinja2


def render(template: str, **values: object) -> str:
    """The template with the values filled in, without the line ends between its tags."""
    return _compile(template).render(values)


@functools.cache
def _compile(template: str) -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(template.strip().replace(">\n<", "><"))
