update users
set email = case
        when $3 then $2
        when coalesce(email_verified, false) then email
        else coalesce($2, email)
    end,
    email_verified = $3 or coalesce(email_verified, false),
    linkedin_url = coalesce($4, linkedin_url),
    updated_at = clock_timestamp()
where id = $1
returning
    email_verified,
    coalesce(first_name, '') <> '' and coalesce(last_name, '') <> '' and coalesce(company, '') <> ''
        and coalesce(title, '') <> '' as has_profile
