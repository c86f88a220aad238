//! Plans that find rows by an index.

use super::kept_plans::KeptPlan;
use crate::nested_settings::NestedSettings;

/// Settings under which a statement is planned with an index, if one serves. If none does, PostgreSQL before 18
/// takes the plan for so costly that it would compile it.
pub(super) fn by_index() -> NestedSettings {
    let settings = NestedSettings::begin();
    settings.set(c"enable_seqscan", c"off");
    settings.set(c"jit", c"off");
    settings
}

/// Has a plan made with an index. A user's code that the statement runs sees the settings of the session.
pub(super) fn make_by_index(plan: &KeptPlan) {
    let _settings = by_index();
    plan.make();
}
