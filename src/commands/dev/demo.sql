-- Two people and their conversations, for the demo tasks; once.
insert into users (id, phone_number, first_name, email, poc_agent_type, verified)
values
    ('00000000-0000-4000-8000-000000000001', '+15550000001', 'Ada', 'ada@example.com', 'concierge', true),
    ('00000000-0000-4000-8000-000000000002', '+15550000002', 'Ben', null, 'bouncer', false)
on conflict do nothing;

insert into conversations (id, user_id, phone_number, status)
values
    ('00000000-0000-4000-8000-000000000011', '00000000-0000-4000-8000-000000000001', '+15550000001', 'active'),
    ('00000000-0000-4000-8000-000000000012', '00000000-0000-4000-8000-000000000002', '+15550000002', 'active')
on conflict do nothing
