select
    nullif(first_name, '') as first_name,
    nullif(poc_agent_type, '') as poc_agent_type,
    nullif(email, '') as email,
    coalesce(verified, false) as verified,
    coalesce(credit_balance, 0)::int8 as credit_balance,
    coalesce(response_pattern ->> 'user_goal', '') <> '' as has_goal
from users
where id = $1
