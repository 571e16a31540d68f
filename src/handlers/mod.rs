//! The built-in handlers: one file a `task_type`, one line each below.

mod echo;
mod re_engagement_check;
mod require;
mod research_solution;
mod schedule_followup;
mod store;
mod update_user_profile;

use crate::handler::Registry;

/// All built-in handlers. To add one: its file beside this one, and its line here.
#[must_use]
pub fn all() -> Registry {
    Registry::new()
        .with(echo::Echo)
        .with(re_engagement_check::ReEngagementCheck)
        .with(research_solution::ResearchSolution)
        .with(schedule_followup::ScheduleFollowup)
        .with(update_user_profile::UpdateUserProfile)
}
