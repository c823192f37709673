"""The course of a run: steps, lines of metrics, checkpoints; resumed, rolled back, stopped."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import broadcast_object_list, gather_object

from koalpaca_tune.diagnosis.watch import Notice
from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.training import checkpoint, durable, generators, guard, position, signals, store
from koalpaca_tune.training.metrics import Metrics
from koalpaca_tune.training.window import Window

if TYPE_CHECKING:
    from koalpaca_tune.training.loop import Trainer

Progress = Callable[[int, int, dict[str, Any]], None]
"""(steps done, steps in all, the newest metrics) -> None; under `told` among them: lines for a person."""
Event = Callable[[str, dict[str, Any]], None]
"""(resumed or rollback, what record.json keeps of it) -> None."""


class Course:
    """One `Trainer.run`."""

    def __init__(
        self, trainer: Trainer, folder: Path, allow: bool, progress: Progress | None, event: Event | None
    ) -> None:
        """As `Trainer.run` has them."""
        self.trainer = trainer
        self.training = trainer.training
        self.settings = trainer.recipe.watch
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.allow = allow
        self.main: bool = trainer.accelerator.is_main_process
        self.best: dict[str, Any] | None = None
        self._progress = progress
        self._event = event
        self._told: list[str] = []

    def go(self, resume: bool) -> Metrics:
        """See `Trainer.run`."""
        trainer = self.trainer
        done, window = self._resume() if resume else self._begin()
        while done < trainer.total:
            self._mark(done)
            try:
                trainer.take(done, window)
                if self._is_stop(done + 1) or self._asked():
                    trainer.settle(window)
            except KoalpacaError as error:
                done, window = self._mend(error, done + 1)
                continue
            done += 1
            row: dict[str, Any] = {}
            if done % self.training.log_every == 0 or done == trainer.total:
                row = trainer.row(done - 1, window)
                window = Window()
            improved = False
            if trainer.valid and (done == trainer.total or done % (self.training.eval_every or trainer.total) == 0):
                with window.paused():
                    row = {"step": done, **row, "valid_loss": trainer.mean_loss(trainer.valid)}
                if not math.isfinite(row["valid_loss"]):
                    done, window = self._mend(_not_finite(done, row["valid_loss"]), done)
                    continue
                improved = self._is_best(row)
            notices = self._look(row)
            decision = self._decide(notices)
            self._tell(done, row)
            if decision == "rollback":
                done, window = self._roll_back(done, notices)
                continue
            ends = decision == "stop" or self._asked()
            if ends or improved or done % self.training.checkpoint_every == 0 or done == trainer.total:
                with window.paused():
                    self._save(done, window)
            if decision == "stop":
                raise guard.stopped(self.folder, done, trainer.rollbacks, notices)
            if ends and done < trainer.total:
                raise signals.Interrupted(trainer.signals.caught or signals.HEARD[0], done)
        if self.main:
            self._finish()
        return self.metrics

    # the beginning

    def _begin(self) -> tuple[int, Window]:
        self._trail([])
        window = Window()
        if self.settings.policy == "rollback":
            # something to go back to before the first checkpoint is due
            self._save(0, window)
        return 0, window

    def _trail(self, rows: Sequence[Any]) -> None:
        """Lines of metrics so far; only the first process has any, and writes."""
        self.metrics = Metrics(self.folder / "metrics.jsonl", rows if self.main else None)
        self.guard = guard.Guard(self.settings, self.trainer.total, self.metrics.rows)

    def _resume(self) -> tuple[int, Window]:
        path, damaged = self._find()
        if path is None:
            self._told.append("아직 체크포인트가 없어 처음부터 합니다 (no checkpoint yet: from the first step)")
            self._note("resumed", {"step": 0, "damaged": damaged})
            self._tell(0, {})
            return self._begin()
        state = self._restore(path)
        step = int(state["step"])
        if not self.allow and state["order"] != self._order:
            raise KoalpacaError(
                "resume-differs",
                "the order in which examples are learned is not the one that the run was started with.",
                where=f"{path}: order",
                fix="Resume with the package versions in record.json, or accept it with --allow order.",
            )
        self.trainer.shift = step - position.step_at(self.trainer.steps, int(state["rows"]))
        self._trail(checkpoint.rows_of(path) if self.main else [])
        self._told.append(f"단계 {step:,}의 체크포인트에서 이어 합니다 (resumed at step {step:,})")
        self._note("resumed", {"step": step, "damaged": damaged})
        self._tell(step, {})
        return step, Window.from_dict(state["window"])

    def _find(self) -> tuple[Path | None, list[str]]:
        """The checkpoint to go on from, the same for all processes, and the names of damaged ones set aside."""
        found: list[Any] = [None, []]
        if self.main:
            path, damaged, told = store.find(self.checkpoints, self.trainer.rollbacks)
            self._told += told
            found = [path, damaged]
        self._share(found)
        return found[0], found[1]

    def _restore(self, path: Path) -> dict[str, Any]:
        trainer = self.trainer
        state = checkpoint.restore(path, trainer.trained, trainer.optimizer, trainer.accelerator.process_index)
        self.best = state["best"]
        return state

    # after a step

    def _is_stop(self, done: int) -> bool:
        """Whether something is written or measured after so many steps."""
        total = self.trainer.total
        every = (self.training.log_every, self.training.checkpoint_every, self.training.eval_every or total)
        return done == total or any(done % n == 0 for n in every)

    def _asked(self) -> bool:
        """Whether a signal came. Several processes know it from the same step's numbers."""
        if self.trainer.accelerator.num_processes > 1:
            return self.trainer.asked
        return self.trainer.signals.caught is not None

    def _is_best(self, row: dict[str, Any]) -> bool:
        if self.best is not None and row["valid_loss"] >= self.best["valid_loss"]:
            return False
        self.best = {"step": row["step"], "valid_loss": row["valid_loss"]}
        return True

    def _look(self, row: dict[str, Any]) -> list[Notice]:
        """Adds a line of metrics, with the names of what is noticed in it; all processes get the notices."""
        if not row:
            return []
        shared: list[Any] = [[]]
        if self.main:
            shared = [self.guard.see(row)]
            if shared[0]:
                row["notices"] = [one.name for one in shared[0]]
            self._told += [f"단계 {one.step:,}: {one.what}" for one in shared[0]]
            self.metrics.add(row)
        self._share(shared)
        notices: list[Notice] = shared[0]
        return notices

    def _decide(self, notices: Sequence[Notice]) -> guard.Decision:
        return self.guard.decide([one.remedy for one in notices], len(self.trainer.rollbacks))

    def _tell(self, done: int, row: dict[str, Any]) -> None:
        told, self._told = self._told, []
        if self._progress and (told or done):
            self._progress(done, self.trainer.total, {**row, "told": told} if told else row)

    def _save(self, done: int, window: Window) -> None:
        trainer = self.trainer
        trainer.settle(window)
        random = gather_object([generators.take()])
        if self.main:
            state = {
                "steps": trainer.total,
                "rows": position.rows_before(trainer.steps)[done - trainer.shift],
                "order": self._order,
                "world_size": trainer.accelerator.num_processes,
                "window": window.as_dict(),
                "best": self.best,
                "rollbacks": len(trainer.rollbacks),
            }
            checkpoint.save(
                self.checkpoints,
                done,
                trainer.trained,
                trainer.optimizer,
                state,
                rows=self.metrics.rows,
                random=random,
            )
            store.prune(self.checkpoints, self.training.keep_checkpoints, self._precious())
        trainer.accelerator.wait_for_everyone()

    @cached_property
    def _order(self) -> str:
        return position.digest(self.trainer.steps)

    def _precious(self) -> set[int]:
        """Steps of checkpoints that are kept beyond the newest: the best, and the one to go back to."""
        kept = set() if self.best is None else {int(self.best["step"])}
        if self.settings.policy != "warn":
            # the next line may tell of trouble that began some lines before
            well = guard.before(self.metrics.rows, guard.LATE - 1)
            kept |= store.around(self.checkpoints, well)
        return kept

    # trouble

    def _mend(self, error: KoalpacaError, at: int) -> tuple[int, Window]:
        """Rolls back from a loss that is not finite, where the policy says so; otherwise raises the error."""
        notice = Notice("not-finite", at, str(error), {}, "rollback")
        if error.problems[0].code != "loss-not-finite" or self._decide([notice]) != "rollback":
            raise error
        self._told.append(str(error))
        self._tell(at, {})
        return self._roll_back(at, [notice])

    def _roll_back(self, at: int, notices: Sequence[Notice]) -> tuple[int, Window]:
        """Puts the last good checkpoint in place, and lowers the rate."""
        trainer = self.trainer
        found: list[Any] = [None, None]
        if self.main:
            path, bad = store.newest(self.checkpoints, guard.good(self.metrics.rows, notices))
            if path is None:
                raise guard.stopped(self.folder, at, trainer.rollbacks, notices)
            self._told += store.set_aside(bad, path)
            back = self.guard.back(at, checkpoint.step_of(path), notices, trainer.rollbacks)
            # known before anything is taken away: a run killed here resumes behind the rollback
            self._note("rollback", back.as_dict())
            store.take_back(self.checkpoints, back.step)
            self.metrics.cut(back.step)
            found = [path, back]
        self._share(found)
        path, back = found
        trainer.rollbacks.append(back)
        trainer.forget()
        state = self._restore(path)
        self.guard = guard.Guard(self.settings, trainer.total, self.metrics.rows)
        self._told.append(back.words())
        return back.step, Window.from_dict(state["window"])

    def _mark(self, done: int) -> None:
        """Adds the line of a rollback where its steps begin; resumed before them, it comes when they do."""
        due = [one for one in self.trainer.rollbacks if one.step == done]
        if not due or not self.main:
            return
        marked = {row["rollback"]["number"] for row in self.metrics.rows if "rollback" in row}
        for one in due:
            if one.number not in marked:
                self.metrics.add(one.row())
                self.guard.see(one.row())

    # the end

    def _finish(self) -> None:
        trained, recipe = self.trainer.trained, self.trainer.recipe
        final = self.folder / recipe.output
        if bool(trained.idle().all()):
            raise KoalpacaError(
                "adapter-dead",
                "after training every weight is as it was: nothing was learned."
                if recipe.full
                else "after training every B matrix is still zero: the adapter changes nothing.",
                where=str(self.folder),
                fix="Check the learning rate and the data.",
            )
        made = durable.aside(final)
        with durable.writing(final):
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir(parents=True)
            trained.write(made)
            durable.place(made, final)
        self.metrics.plot(self.folder / "report" / "loss.svg")

    def _note(self, kind: str, what: dict[str, Any]) -> None:
        if self._event and self.main:
            self._event(kind, what)

    def _share(self, objects: list[Any]) -> None:
        """The first process's objects, to all."""
        if self.trainer.accelerator.num_processes > 1:
            broadcast_object_list(objects)


def _not_finite(done: int, loss: float) -> KoalpacaError:
    return KoalpacaError(
        "loss-not-finite",
        f"after step {done} the validation loss is {loss:.4g}.",
        fix="Lower training.learning_rate, or look at the validation data.",
    )
