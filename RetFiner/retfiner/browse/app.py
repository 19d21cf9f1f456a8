"""The page itself; Streamlit runs this file from top to bottom each time something is chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import streamlit as st

from retfiner.api import Subject, read_images
from retfiner.browse.collection import (
    Array,
    Neighbour,
    Opened,
    nearest_bscans,
    nearest_reports,
    open_collection,
    own_report,
)
from retfiner.browse.config import DESCRIPTION, BrowseConfig
from retfiner.browse.render import error_lines, fragment, number, report_table, scores
from retfiner.browse.upload import on_file
from retfiner.common.cli import parse
from retfiner.common.errors import InputError
from retfiner.data.pictures import ExamPictures
from retfiner.evaluation.pages import as_8bit
from retfiner.explanation.page import build_page
from retfiner.vision import ImageAddress, count_images, iter_images, read_image

T = TypeVar("T")

BY_ROW, BY_FILE, BY_WORDS = "A B-scan of the table", "A file of mine", "Words"
REPORTS_SHOWN, BSCANS_SHOWN, BSCANS_ABREAST = 8, 9, 3


class Chosen(NamedTuple):
    """The B-scan or exam that is looked at, its ``images`` in [0, 1], and its name on the page.

    ``key`` tells it from others; a file that was dropped has no place in the collection.
    """

    key: tuple[Any, ...]
    subject: Subject
    images: list[Array]
    place: int | None
    name: str


def show(config: BrowseConfig) -> None:
    """Show the page; the model and the table are opened at the first call only."""
    st.set_page_config(page_title="RetFiner", layout="wide")
    try:
        opened = open_collection(config)
        _show_header(opened)
        begin = st.radio("Begin with", [BY_ROW, BY_FILE, BY_WORDS], horizontal=True, key="begin")
        if begin == BY_WORDS:
            _show_words(opened)
            return
        chosen = _choose_from_table(opened) if begin == BY_ROW else _choose_from_file(opened)
        if chosen is not None:
            _show_bscan(opened, chosen)
    except InputError as error:
        st.error(error_lines(error))


def _show_header(opened: Opened) -> None:
    model, collection = opened
    st.html(fragment("style"))
    st.title("What a refined model sees", anchor=False)
    st.warning("Research output, not a diagnosis.")
    losses = ", ".join(model.loaded.losses)
    left_out = f", {collection.left_out} rows left out" if collection.left_out else ""
    st.html(
        fragment(
            "note",
            f"{model.loaded.model.backbone.spec.name}, refined with {losses}. "
            f"{len(collection.subjects)} {collection.noun}s with {len(collection.reports)} distinct"
            f" reports"
            f"{left_out}. Nothing is kept: what you drop here stays in memory until you close "
            "the page.",
        )
    )
    if not model.can_compare:
        st.info("Refined without itc and itm, the model cannot find what is alike.")
    elif not model.can_match:
        st.info("Refined without itm, the model orders by cosine alone and shows no word maps.")
    if not model.can_write:
        st.info("Refined without gm, the model writes no reports.")


def _show_bscan(opened: Opened, chosen: Chosen) -> None:
    """Show a B-scan with the reports near it, the report written for it, and the word maps."""
    model, collection = opened
    own = None if chosen.place is None else int(collection.report_of[chosen.place])
    left, right = st.columns([2, 3], gap="large")
    with left:
        _show_image(chosen)
        if chosen.place is not None:
            _show_own_report(opened, chosen.place)
        written = _show_written(opened, chosen)
    with right:
        found = _show_nearest_reports(opened, chosen, own)
    if model.can_match:
        reports = [] if own is None else [collection.reports[own]]
        reports += [written] if written else []
        reports += [collection.reports[neighbour.place] for neighbour in found[:REPORTS_SHOWN]]
        _show_words_in(opened, chosen, list(dict.fromkeys(reports)))


@st.fragment
def _show_image(chosen: Chosen) -> None:
    """Show the B-scan, or one of an exam; choosing another of them runs this part alone."""
    image, name = chosen.images[0], chosen.name
    if isinstance(chosen.subject, ExamPictures) and len(chosen.images) > 1:
        names = chosen.subject.names
        middle = names[len(names) // 2]
        shown = st.select_slider("Image of the exam", names, middle, key=f"of-{chosen.key}")
        image, name = chosen.images[names.index(shown)], f"{name}, {shown}"
    st.image(as_8bit(image), width="stretch")
    height, width = image.shape[:2]
    st.html(fragment("note", f"{name}, {width} x {height} pixels"))


def _show_own_report(opened: Opened, place: int) -> None:
    model, collection = opened
    own = fragment("heading", "Its report") + fragment("text", collection.report(place))
    if model.can_compare:
        cosine, rank = own_report(collection, place)
        own += fragment(
            "note", f"Cosine {number(cosine)}, number {rank} of {len(collection.reports)} by cosine"
        )
    st.html(own)


def _show_written(opened: Opened, chosen: Chosen) -> str:
    """Show and return the report that the model writes; empty if it writes none."""
    if not opened.model.can_write:
        return ""
    [written] = _memoised("written", chosen.key, lambda: opened.model.generate(chosen.subject))
    st.html(
        fragment("heading", "Written by the model")
        + fragment("text", written or "(nothing)")
        + fragment("note", "In the style of the reports it was refined on. It may be wrong.")
    )
    return written


def _show_nearest_reports(opened: Opened, chosen: Chosen, own: int | None) -> list[Neighbour]:
    model, collection = opened
    if not model.can_compare:
        return []
    st.subheader("Nearest reports", anchor=False)
    by_match = _ask_for_match(opened)
    found = _memoised(
        "reports",
        (*chosen.key, by_match),
        lambda: nearest_reports(model, collection, chosen.subject, by_match),
    )
    st.html(report_table(collection, found[:REPORTS_SHOWN], own))
    return found


@st.fragment
def _show_words_in(opened: Opened, chosen: Chosen, reports: list[str]) -> None:
    """Show where each word of a report looks; choosing another report runs this part alone."""
    left, right = st.columns(2, gap="large")
    with left:
        report = st.selectbox("Word maps of a report", reports, key=f"report-{chosen.key}")
    with right:
        typed = st.text_input("or of your own words", key="own-words")
    report = typed.strip() or report
    if report is None:
        return
    try:
        page = _memoised(
            "page",
            (*chosen.key, report),
            lambda: build_page(opened.model.explain(chosen.subject, report)),
        )
        st.iframe(page, height="content", alt="The B-scan with a map for each word of the report")
    except InputError as error:
        st.error(error_lines(error))


def _choose_from_table(opened: Opened) -> Chosen:
    collection = opened.collection
    _restore("place", 0)
    place = st.selectbox(
        f"{collection.noun[0].upper()}{collection.noun[1:]} of the table, by row and report",
        range(len(collection.subjects)),
        format_func=lambda place: f"row {collection.rows[place]}: {collection.report(place)}",
        key="place",
    )
    st.session_state["last-place"] = place
    key = ("table", place)
    images = _memoised("image", key, lambda: collection.read(place))
    return Chosen(key, collection.subjects[place], images, place, f"Row {collection.rows[place]}")


def _choose_from_file(opened: Opened) -> Chosen | None:
    file = st.file_uploader(
        "Drop a B-scan or a volume: PNG, JPEG, TIFF, BMP, NPY, DICOM, VOL, E2E, IMG, FDA, FDS",
        key="file",
    )
    if file is None:
        return None
    name, content = file.name, file.getbuffer()
    count = _memoised("count", (file.file_id,), lambda: on_file(name, content, count_images))
    index = None
    model = opened.model
    if count > 1 and model.can_read_exams and st.toggle("All of its B-scans as one exam", True):
        whole = ("file", file.file_id, "exam")
        exam = _memoised(
            "image",
            whole,
            lambda: model.exam(on_file(name, content, lambda path: list(iter_images(path)))),
        )
        return Chosen(whole, exam, read_images(exam), None, "Your file")
    if count > 1:
        index = st.slider("B-scan", 0, count - 1, count // 2, key=f"slice-{file.file_id}")
    key = ("file", file.file_id, index)
    image = _memoised(
        "image",
        key,
        lambda: on_file(name, content, lambda path: read_image(ImageAddress(path, index))),
    )
    return Chosen(
        key, image, [image], None, "Your file" if index is None else f"B-scan {index} of yours"
    )


def _show_words(opened: Opened) -> None:
    """Show the B-scans nearest to words."""
    model, collection = opened
    if not model.can_compare:
        return
    _restore("words", "")
    words = st.text_input("Words, as a report would have them", key="words")
    st.session_state["last-words"] = words
    by_match = _ask_for_match(opened)
    if not words.strip():
        return
    found = nearest_bscans(model, collection, words, by_match)[:BSCANS_SHOWN]
    for first in range(0, len(found), BSCANS_ABREAST):
        columns = st.columns(BSCANS_ABREAST, gap="medium")
        for column, neighbour in zip(columns, found[first : first + BSCANS_ABREAST], strict=False):
            with column:
                images = collection.read(neighbour.place)
                st.image(as_8bit(images[len(images) // 2]), width="stretch")
                row = collection.rows[neighbour.place]
                st.html(
                    fragment("note", f"Row {row} · {scores(neighbour)}")
                    + fragment("text", collection.report(neighbour.place))
                )
                st.button(
                    f"Look at row {row}",
                    key=f"look-{row}",
                    on_click=st.session_state.update,
                    args=({"begin": BY_ROW, "last-place": neighbour.place},),
                )


def _restore(key: str, default: object) -> None:
    """Give a widget back what it held before it was out of sight; Streamlit forgets it."""
    if key not in st.session_state:
        st.session_state[key] = st.session_state.get(f"last-{key}", default)


def _ask_for_match(opened: Opened) -> bool:
    if not opened.model.can_match:
        return False
    return st.toggle(
        "In the order of the match score",
        value=True,
        key="by_match",
        help="The nearest by cosine are read together with the B-scan, pair by pair: slower, and "
        "more exact if the match loss came below chance in training. Not calibrated.",
    )


def _memoised(name: str, key: tuple[Any, ...], make: Callable[[], T]) -> T:
    """Return what this session made last under a name, or make it if the key is another."""
    kept = st.session_state.get(f"memo-{name}")
    if kept is None or kept[0] != key:
        kept = (key, make())
        st.session_state[f"memo-{name}"] = kept
    return kept[1]


if __name__ == "__main__":
    show(parse(BrowseConfig, DESCRIPTION))
