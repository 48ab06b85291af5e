"""What is typed at the command line, before anything is loaded: names, groups, and what files in `conf/` compute."""

from lightning_prune.options.choices import options_of, refuse_bad_choices
from lightning_prune.options.composing import composing, wants_full_errors
from lightning_prune.options.metric_names import SPLIT, metric_name, mode_of
from lightning_prune.options.overrides import (
    WITHIN,
    refuse_misplaced,
    refuse_renamed,
    refuse_strays,
    refuse_unknown,
    refuse_unread,
)
from lightning_prune.options.refused import remove_empty
from lightning_prune.options.resolvers import register_resolvers
from lightning_prune.options.search_path import CONF, OwnConfigurations
from lightning_prune.options.stage_needs import (
    Config,
    is_of_teacher,
    keeps_dense,
    needs_dense,
    needs_momentum,
    needs_teacher,
)
from lightning_prune.options.typed_words import completed, spelled

__all__ = [
    "CONF",
    "SPLIT",
    "WITHIN",
    "Config",
    "OwnConfigurations",
    "completed",
    "composing",
    "is_of_teacher",
    "keeps_dense",
    "metric_name",
    "mode_of",
    "needs_dense",
    "needs_momentum",
    "needs_teacher",
    "options_of",
    "refuse_bad_choices",
    "refuse_misplaced",
    "refuse_renamed",
    "refuse_strays",
    "refuse_unknown",
    "refuse_unread",
    "register_resolvers",
    "remove_empty",
    "spelled",
    "wants_full_errors",
]
