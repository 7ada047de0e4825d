-- A day of the shop: can be run again and again.

INSERT INTO customers (email, name) SELECT 'New' || gen_random_uuid() || '@example.com', 'New' FROM generate_series(1, 5);
UPDATE customers SET name = coalesce(name, '') || '!', tags = tags || ARRAY['seen'] WHERE id % 7 = 1;
UPDATE customers SET preferences = preferences || '{"theme": "dark"}' WHERE id % 5 = 2;

DELETE FROM customers WHERE id = (SELECT max(id) - 3 FROM customers);

INSERT INTO orders (id, placed_on, customer_id, total)
    SELECT (SELECT max(id) FROM orders) + i, date '2024-01-20' + i * 9, (SELECT max(id) FROM customers), i FROM generate_series(1, 8) i;
UPDATE orders SET state = 'paid' WHERE state = 'new' AND id % 6 = 0;
UPDATE orders SET state = (enum_range(NULL::order_state))[4], note = NULL WHERE state = 'paid' AND id % 4 = 0;
UPDATE orders SET placed_on = placed_on + 31 WHERE id % 29 = 3;

INSERT INTO order_lines SELECT id, 9, 9, 1, 1.25 FROM orders WHERE id % 3 = 0 ON CONFLICT (order_id, line) DO UPDATE SET quantity = order_lines.quantity + 1;
DELETE FROM order_lines WHERE line = 2 AND order_id % 17 = 4;

UPDATE stock SET quantity = quantity + 1 WHERE variant_id % 9 = 2;
DELETE FROM stock WHERE variant_id = (SELECT max(variant_id) FROM stock);

UPDATE products SET price = price + 0.5 WHERE id % 8 = 1;
UPDATE products SET description = description || 'more' WHERE id % 25 = 1;
UPDATE products SET size.width = 7, weight = NULL WHERE id % 10 = 3;

INSERT INTO payments (order_id, state, paid) SELECT max(id), 'authorised', 3 FROM orders;
UPDATE payments SET state = (enum_range(NULL::payment_state))[3] WHERE state = 'authorised';

UPDATE shipments SET region = CASE region WHEN 'de' THEN 'us' ELSE 'de' END WHERE id % 13 = 6;
UPDATE coupons SET code = code || 'x' WHERE code = (SELECT max(code) FROM coupons WHERE length(code) < 12);

INSERT INTO page_views SELECT '/p/1', timestamp '2024-02-02', i, 2 FROM generate_series(1, 5) i;
DELETE FROM page_views WHERE ctid = (SELECT min(ctid) FROM page_views);
UPDATE page_views SET milliseconds = milliseconds + 1 WHERE path = '/p/2';

UPDATE jobs SET done = true, tries = tries + 1 WHERE id % 4 = 1;
DELETE FROM jobs WHERE done AND id % 8 = 1;

UPDATE ticket_messages SET ticket_id = ticket_id WHERE id % 2 = 0;
INSERT INTO loyalty_moves (customer_id, change) SELECT customer_id, 1 FROM loyalty_accounts LIMIT 5;

INSERT INTO webhooks (body) VALUES ('again');
UPDATE rate_limits SET hits = hits + 1;
REFRESH MATERIALIZED VIEW sales;
