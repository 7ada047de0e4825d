-- Steps as an application's releases make them: each text between blank lines is sent by itself, rows change in between.

-- A column in steps, as linters advise: nullable, backfilled, with a default, then NOT NULL.
ALTER TABLE orders ADD COLUMN channel text;

UPDATE orders SET channel = 'web' WHERE id % 2 = 0;

UPDATE orders SET channel = 'shop' WHERE channel IS NULL;
ALTER TABLE orders ALTER channel SET DEFAULT 'web';

ALTER TABLE orders ADD CONSTRAINT channel_known CHECK (channel IS NOT NULL) NOT VALID;

ALTER TABLE orders VALIDATE CONSTRAINT channel_known;
ALTER TABLE orders ALTER channel SET NOT NULL;

-- The same for a table that is not partitioned, with a default that is set before the rows are filled.
ALTER TABLE customers ADD COLUMN region char(2);

ALTER TABLE customers ALTER region SET DEFAULT 'eu';

UPDATE customers SET region = 'eu' WHERE region IS NULL;
ALTER TABLE customers ALTER region SET NOT NULL;

-- A column with a constant default, and one with a volatile default, whose old rows nobody has logged.
ALTER TABLE products ADD COLUMN rank int NOT NULL DEFAULT 100;

ALTER TABLE carts ADD COLUMN share_id uuid NOT NULL DEFAULT gen_random_uuid();

ALTER TABLE carts ALTER share_id DROP DEFAULT;

-- A new column takes the name of an old one.
ALTER TABLE products ADD COLUMN price_cents bigint;
UPDATE products SET price_cents = price * 100;

ALTER TABLE products DROP COLUMN price_with_tax;
ALTER TABLE products RENAME COLUMN price TO price_old;
ALTER TABLE products RENAME COLUMN price_cents TO price;

ALTER TABLE products DROP COLUMN price_old;

-- An integer key that has become too small.
ALTER TABLE tickets ALTER id TYPE bigint;
ALTER TABLE ticket_messages ALTER ticket_id TYPE bigint;

-- A new table takes the place of an old one.
CREATE TABLE wishlists_new (id int PRIMARY KEY, customer_id bigint, name text, is_public boolean NOT NULL DEFAULT false);
INSERT INTO wishlists_new SELECT id, customer_id, name FROM wishlists;

BEGIN;
ALTER TABLE wishlists RENAME TO wishlists_old;
ALTER TABLE wishlists_new RENAME TO wishlists;
COMMIT;

DROP TABLE wishlists_old CASCADE;

-- Retention: the oldest month goes, one is kept apart, a new one comes, and one comes filled.
DROP TABLE orders_2024_01;

ALTER TABLE orders DETACH PARTITION orders_2024_02;

CREATE TABLE orders_2031_08 PARTITION OF orders FOR VALUES FROM ('2031-08-01') TO ('2031-09-01');

CREATE TABLE orders_old (LIKE orders INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES);
INSERT INTO orders_old (id, placed_on, total) SELECT 900000 + i, date '2023-01-01' + i, i FROM generate_series(1, 20) i;

ALTER TABLE orders ATTACH PARTITION orders_old FOR VALUES FROM ('2023-01-01') TO ('2023-03-01');

UPDATE orders SET total = total + 1 WHERE id > 900000;

TRUNCATE orders_old;

CREATE TABLE shipments_uk PARTITION OF shipments FOR VALUES IN ('uk');
INSERT INTO shipments VALUES (1, 'uk', 1, NULL, NULL);

-- Types
ALTER TYPE order_state ADD VALUE 'returned' AFTER 'done';

UPDATE orders SET state = 'returned' WHERE id % 19 = 5;

ALTER TYPE order_state RENAME VALUE 'sent' TO 'shipped';

ALTER TYPE payment_state RENAME VALUE 'captured' TO 'settled';

ALTER TYPE dimensions ADD ATTRIBUTE unit text;

ALTER DOMAIN email ADD CONSTRAINT short CHECK (length(VALUE) < 200);

ALTER TABLE categories ALTER name TYPE varchar(80) USING upper(name);

ALTER TABLE settings ALTER value TYPE text USING value::text;

ALTER TABLE product_reviews ALTER stars TYPE int, ADD COLUMN stars_text text GENERATED ALWAYS AS (repeat('*', stars)) STORED;

-- Keys
ALTER TABLE coupon_uses ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY;

ALTER TABLE coupon_uses DROP CONSTRAINT coupon_uses_pkey, ADD PRIMARY KEY (id);

ALTER TABLE webhooks ADD COLUMN id bigserial PRIMARY KEY;

ALTER TABLE page_views ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid();
ALTER TABLE page_views ADD PRIMARY KEY (id);

ALTER TABLE page_views REPLICA IDENTITY DEFAULT;

-- Housekeeping
VACUUM FULL jobs;

CLUSTER stock USING stock_pkey;

REINDEX TABLE payments;

CREATE INDEX CONCURRENTLY payments_by_order ON payments (order_id);

ALTER TABLE rate_limits SET LOGGED;

TRUNCATE sessions, password_resets;

CREATE TABLE order_totals AS SELECT order_id, sum(total) AS total FROM order_lines GROUP BY order_id;
ALTER TABLE order_totals ADD PRIMARY KEY (order_id);

DROP TABLE newsletter_subscriptions;

CREATE TABLE newsletter_subscriptions (newsletter_id int, email text, since date DEFAULT '2024-01-01', PRIMARY KEY (newsletter_id, email));
INSERT INTO newsletter_subscriptions VALUES (1, 'a@b');
