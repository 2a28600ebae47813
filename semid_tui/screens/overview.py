"""1 Overview: training, the health of the codebooks, the files and the host on one screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical

from semid_daemon.store.read.files import FileRow
from semid_daemon.store.read.loss import LossCurve
from semid_daemon.store.read.monitor import Event, Overview, Usage
from semid_tui.data.queries import EventsQuery, LossQuery, Query, TroubledFilesQuery, UsageQuery
from semid_tui.render.chart import View, loss_lines
from semid_tui.render.overview import (
    all_files_lines,
    codebook_lines,
    event_lines,
    host_lines,
    quality_lines,
    trouble_lines,
    work_lines,
)
from semid_tui.render.spans import Line
from semid_tui.render.train import layer_marks
from semid_tui.widgets.pane import Pane, PanePart


class OverviewPart(PanePart["OverviewPane"], can_focus=True):
    """A part of the overview. Enter shows the screen with the details."""

    BINDINGS = [Binding("enter", "more", "Open", show=False)]
    more = 1

    async def action_more(self) -> None:
        await self.run_action(f"app.show({self.more})")


class LossPart(OverviewPart):
    more = 2

    def lines(self, width: int, height: int) -> list[Line]:
        marks = layer_marks(self.pane.curve) if self.pane.curve is not None else ()
        view = View(log=self.pane.log_scale, marker=self.monitor.marker, marks=marks)
        return loss_lines(self.pane.curve, width, height, view)


class QualityPart(OverviewPart):
    more = 7

    def lines(self, width: int, height: int) -> list[Line]:
        overview, limits = self.pane.overview, self.monitor.config.generations
        if overview is None:
            return []
        return quality_lines(overview, width, self.monitor.marker, limits.drift_error_ratio, limits.drift_js)


class WorkPart(OverviewPart):
    more = 4

    def lines(self, width: int, height: int) -> list[Line]:
        overview = self.pane.overview
        return work_lines(overview, width, height, self.monitor.marker) if overview else []


class AllFilesPart(OverviewPart):
    more = 4

    def lines(self, width: int, height: int) -> list[Line]:
        overview = self.pane.overview
        return all_files_lines(overview, width, self.monitor.marker) if overview else []


class CodesPart(OverviewPart):
    more = 3

    def lines(self, width: int, height: int) -> list[Line]:
        pane = self.pane
        if pane.overview is None:
            return []
        return codebook_lines(pane.overview, pane.usage, width, height, self.monitor.marker, trend=pane.is_wide)


class FilesPart(OverviewPart):
    more = 4

    def lines(self, width: int, height: int) -> list[Line]:
        pane = self.pane
        return trouble_lines(pane.overview, pane.troubled, width, height, self.monitor.marker) if pane.overview else []


class HostPart(OverviewPart):
    def lines(self, width: int, height: int) -> list[Line]:
        overview = self.pane.overview
        return host_lines(overview, width, height, self.monitor.marker) if overview else []


class EventsPart(OverviewPart):
    more = 8

    def lines(self, width: int, height: int) -> list[Line]:
        return event_lines(self.pane.events, width, height, self.monitor.marker)


class OverviewPane(Pane):
    """One column of parts, two on larger terminals."""

    BINDINGS = [Binding("l", "log", "Log y")]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.curve: LossCurve | None = None
        self.usage: Usage | None = None
        self.troubled: tuple[FileRow, ...] = ()
        self.events: tuple[Event, ...] = ()
        self.log_scale = False
        self.is_wide = False

    def compose(self) -> ComposeResult:
        with Horizontal(id="overview-top"):
            with Vertical(id="overview-left"):
                yield LossPart(self, id="overview-loss")
                yield WorkPart(self, id="overview-work")
                yield AllFilesPart(self, id="overview-all")
            with Vertical(id="overview-right"):
                yield QualityPart(self, id="overview-quality")
                yield CodesPart(self, id="overview-codes")
                yield FilesPart(self, id="overview-files")
                yield HostPart(self, id="overview-host")
        yield EventsPart(self, id="overview-events")

    def queries(self) -> Mapping[str, Query]:
        return {"loss": LossQuery(), "usage": UsageQuery(), "trouble": TroubledFilesQuery(), "events": EventsQuery()}

    def on_resize(self) -> None:
        self._arrange()

    def _arrange(self) -> None:
        """One column or two, and the heights that go with the size."""
        width, height = self.size
        if not width or not height:
            return
        self.is_wide = width >= 110 and height >= 28
        self.set_class(self.is_wide, "wide")
        self.set_class(height < 20, "low")
        quality = self.query_one(QualityPart)
        needed = len(quality.lines(width, height))
        quality.display = needed > 0 and height >= 16
        quality.styles.height = needed
        layers = len(self.overview.layers) if self.overview else 3
        codes = 1 + max(layers, 1) * (2 if self.is_wide else 1)
        self.query_one("#overview-codes").styles.height = min(codes, max(4, height // 3))

    def redraw(self) -> None:
        self._arrange()
        super().redraw()

    def on_overview(self, overview: Overview) -> None:
        self.redraw()

    def on_result(self, slot: str, query: Query, result: Any) -> None:
        match slot:
            case "loss":
                self.curve = result
                self.query_one(LossPart).redraw()
            case "usage":
                self.usage = result
                self.query_one(CodesPart).redraw()
            case "trouble":
                self.troubled = result
                self.query_one(FilesPart).redraw()
            case "events":
                self.events = result
                self.query_one(EventsPart).redraw()

    def action_log(self) -> None:
        self.log_scale = not self.log_scale
        self.query_one(LossPart).redraw()
