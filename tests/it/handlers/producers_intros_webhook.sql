insert into intro_opportunities (id, connector_user_id, innovator_name, status, prospect_name)
values ('00000000-0000-4000-8000-0000000000b1', '00000000-0000-4000-8000-000000000001', 'Rob', 'accepted', 'Tony Katz');
