-- As JSON where the customer's migrations have renamed a column: a prospect has one name or two. What was made is completed,
-- whatever its status still says.
select
    connector_user_id,
    case when intro_completed_at is null then coalesce(status, 'open') else 'completed' end::text as status,
    coalesce(
        nullif(to_jsonb(intro) ->> 'prospect_name', ''),
        nullif(concat_ws(' ', to_jsonb(intro) ->> 'first_name', to_jsonb(intro) ->> 'last_name'), '')
    ) as prospect_name,
    nullif(to_jsonb(intro) ->> 'prospect_company', '') as prospect_company,
    nullif(to_jsonb(intro) ->> 'innovator_name', '') as innovator_name,
    nullif(intro_email, '') as intro_email,
    intro_scheduled_at,
    intro_completed_at
from intro_opportunities intro
where id = $1
