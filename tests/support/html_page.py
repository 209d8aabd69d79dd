"""What is wrong with a page that should need nothing else, and be usable by everyone."""

import re
from html.parser import HTMLParser
from itertools import pairwise

VOID = {"meta", "img", "input", "source", "br", "link", "hr"}


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict]] = []
        self.seen: list[tuple[str, dict]] = []
        self.wrong: list[str] = []
        self.feed(text)
        self.close()
        self.wrong += [f"<{tag}> is never closed" for tag, _ in self.open]

    def of(self, *tags: str) -> list[tuple[str, dict]]:
        return [(tag, given) for tag, given in self.seen if tag in tags]

    def handle_starttag(self, tag, attrs):
        given = {k: v or "" for k, v in attrs}
        self.seen.append((tag, given))
        around = [t for t, _ in self.open]
        if tag in ("p", "div", "ul", "table", "section", "figure") and "p" in around:
            self.wrong.append(f"<{tag}> within <p>")
        boxes = [a for _, a in self.open if "tabindex" in a and a.get("aria-label")]
        if tag == "table" and not boxes:
            self.wrong.append("a table without a box to scroll in")
        if tag not in VOID:
            self.open.append((tag, given))

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, {k: v or "" for k, v in attrs}))

    def handle_endtag(self, tag):
        if not self.open or self.open[-1][0] != tag:
            self.wrong.append(f"</{tag}> closes {self.open[-1][0] if self.open else 'nothing'}")
        else:
            self.open.pop()


def problems(text: str) -> list[str]:
    page = Page(text)
    wrong = list(page.wrong)
    if not page.of("html") or not page.of("html")[0][1].get("lang"):
        wrong.append("no lang")
    levels = [int(tag[1]) for tag, _ in page.of("h1", "h2", "h3", "h4", "h5", "h6")]
    if levels.count(1) != 1 or levels[0] != 1:
        wrong.append(f"headings {levels}: not one h1, first")
    wrong += [f"h{b} follows h{a}" for a, b in pairwise(levels) if b > a + 1]
    wrong += [f"no alt: {a.get('src', '')[:40]}" for _, a in page.of("img") if not a.get("alt")]
    wrong += ["th without scope" for _, a in page.of("th") if not a.get("scope")]
    ids = [a["id"] for _, a in page.seen if "id" in a]
    wrong += [f"id {i} twice" for i in sorted({i for i in ids if ids.count(i) > 1})]
    named = {a.get("for") for _, a in page.of("label")}
    wrong += [f"no label: {a.get('id')}" for _, a in page.of("input") if a.get("id") not in named]
    links = [(tag, a[k]) for tag, a in page.seen for k in ("href", "xlink:href") if k in a]
    inside = [link[1:] for _, link in links if link.startswith("#")]
    inside += re.findall(r"url\(#([^)]+)\)", text)
    wrong += [f"#{i} is nowhere" for i in sorted(set(inside) - set(ids))]
    fetched = [a[k] for _, a in page.seen for k in ("src", "srcset", "data", "poster") if k in a]
    fetched += [link for tag, link in links if tag != "a" and not link.startswith("#")]
    fetched += [link for tag, link in links if tag == "a" and re.match(r"\w+:|//", link)]
    fetched += re.findall(r"url\((?!#)([^)]*)\)|@import([^;]*)", text)
    return wrong + [f"fetches {one}" for one in fetched if not str(one).startswith("data:image/")]
