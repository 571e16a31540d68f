//! The built-in handlers: one file a `task_type`, one line each below.

mod ask;
mod community_request_available;
mod community_response_available;
mod create_conversation_summary;
mod echo;
mod hand_over;
mod intro_followup_check;
mod notify_expert_of_impact;
mod notify_user_of_priorities;
mod process_community_request;
mod process_community_response;
mod re_engagement_check;
mod require;
mod research_solution;
mod schedule_followup;
mod send_introduction;
mod solution_workflow_timeout;
mod store;
mod update_user_profile;
mod verify_user;

use serde_json::json;

use crate::handler::{Outcome, Registry};

/// All built-in handlers. To add one: its file beside this one, and its line here.
#[must_use]
pub fn all() -> Registry {
    Registry::new()
        .with(community_request_available::CommunityRequestAvailable)
        .with(community_response_available::CommunityResponseAvailable)
        .with(create_conversation_summary::CreateConversationSummary)
        .with(echo::Echo)
        .with(intro_followup_check::IntroFollowupCheck)
        .with(notify_expert_of_impact::NotifyExpertOfImpact)
        .with(notify_user_of_priorities::NotifyUserOfPriorities)
        .with(process_community_request::ProcessCommunityRequest)
        .with(process_community_response::ProcessCommunityResponse)
        .with(re_engagement_check::ReEngagementCheck)
        .with(research_solution::ResearchSolution)
        .with(schedule_followup::ScheduleFollowup)
        .with(send_introduction::SendIntroduction)
        .with(solution_workflow_timeout::SolutionWorkflowTimeout)
        .with(update_user_profile::UpdateUserProfile)
        .with(verify_user::VerifyUser)
}

/// The success of a task that has found nothing to do.
fn skipped(reason: impl Into<String>) -> Outcome {
    Outcome::complete(json!({ "skipped": true, "reason": reason.into() }))
}
