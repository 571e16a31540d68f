select count(*) = 2
from pg_attribute
where attrelid = to_regclass('innovators')
    and not attisdropped
    and (attname, atttypid) in (
        ('user_id', 'uuid'::regtype),
        ('updated_at', 'timestamptz'::regtype)
    )
