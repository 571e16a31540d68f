-- Ada (1) has a conversation with the concierge, Ben (2) is being let in by the bouncer, Cyd (3) and Dot (4) are experts.
insert into users (id, phone_number, first_name, email, poc_agent_type, verified, expertise)
values
    ('00000000-0000-4000-8000-000000000001', '+1', 'Ada', 'ada@example.com', 'concierge', true, '{crm}'),
    ('00000000-0000-4000-8000-000000000002', '+2', 'Ben', null, 'bouncer', false, null),
    ('00000000-0000-4000-8000-000000000003', '+3', 'Cyd', null, 'innovator', true, '{CRM}'),
    ('00000000-0000-4000-8000-000000000004', '+4', 'Dot', null, 'concierge', true, '{law}');
insert into conversations (id, user_id, phone_number)
select ('00000000-0000-4000-8000-00000000001' || right(phone_number, 1))::uuid, id, phone_number from users;
