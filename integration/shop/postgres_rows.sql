-- Rows for all tables, and more of them each time that this is run.
INSERT INTO countries SELECT c, 'Land ' || c, c < 'm' FROM unnest('{de,fr,it,us,ca}'::text[]) c ON CONFLICT DO NOTHING;
INSERT INTO currencies VALUES ('EUR', 2), ('USD', 2), ('JPY', 0) ON CONFLICT DO NOTHING;
INSERT INTO languages VALUES ('de', 'Deutsch'), ('en-GB', 'English'), ('fr', 'français') ON CONFLICT DO NOTHING;
INSERT INTO settings SELECT 'key ' || i, jsonb_build_object('n', i, 'x', 'é "q"') FROM generate_series(1, 12) i ON CONFLICT DO NOTHING;
INSERT INTO exchange_rates SELECT 'USD', date '2024-01-01' + i, 1 + i / 7.0 FROM generate_series(0, 30) i ON CONFLICT DO NOTHING;
INSERT INTO tax_classes VALUES (1, 'full'), (2, 'less'), (3, 'none') ON CONFLICT DO NOTHING;
INSERT INTO tax_rates SELECT t, c.code, '2024-01-01', t * 0.07 FROM generate_series(1, 3) t, countries c ON CONFLICT DO NOTHING;
INSERT INTO customers (email, name, born, tags, preferences)
    SELECT 'User' || (SELECT count(*) FROM customers) + i || '@Example.com', nullif('Name ' || i, 'Name 3'), date '1950-01-01' + i * 97,
           CASE WHEN i % 3 = 0 THEN '{}' ELSE ARRAY['t' || i, 'a,b', NULL] END, jsonb_build_object('mail', i % 2 = 0) FROM generate_series(1, 60) i;
INSERT INTO customer_groups SELECT i, 'Group ' || i, i FROM generate_series(1, 4) i ON CONFLICT DO NOTHING;
INSERT INTO customer_group_members SELECT c.id, g.id FROM customers c JOIN customer_groups g ON c.id % 4 = g.id % 4 ON CONFLICT DO NOTHING;
INSERT INTO addresses (customer_id, kind, lines, country, location)
    SELECT id, CASE WHEN id % 2 = 0 THEN 'billing' ELSE 'shipping' END::address_kind, ARRAY['Street ' || id, 'Town'], 'de', point(id, 0.5) FROM customers;
INSERT INTO sessions (customer_id, address, data) SELECT id, '10.0.0.1'::inet + id, convert_to('s' || id, 'UTF8') FROM customers;
INSERT INTO password_resets SELECT id, '\x00ff'::bytea FROM customers WHERE id % 5 = 0 ON CONFLICT DO NOTHING;
INSERT INTO consents SELECT id, p, id % 2 = 0 FROM customers, unnest('{mail,ads}'::text[]) p ON CONFLICT DO NOTHING;
INSERT INTO brands SELECT i, 'Brand ' || i, decode(repeat('0a', i), 'hex') FROM generate_series(1, 9) i ON CONFLICT DO NOTHING;
INSERT INTO categories (parent_id, name, path) SELECT (SELECT min(id) FROM categories), 'Category ' || i, '/' || i FROM generate_series(1, 12) i;
INSERT INTO suppliers SELECT i, 'Supplier ' || i, '{"phone": null}' FROM generate_series(1, 5) i ON CONFLICT DO NOTHING;
INSERT INTO products (brand_id, tax_class_id, name, description, size, attributes, price, weight)
    SELECT 1 + i % 9, 1 + i % 3, 'Product ' || i, repeat('words ' || i || ' ', 20 + i * 20), ROW(i, i + 1, NULL)::dimensions,
           jsonb_build_object('color', 'c' || i % 7, 'list', ARRAY[i]), i * 1.25, i / 3.0 FROM generate_series(1, 50) i;
INSERT INTO product_translations SELECT id, 'de', 'Produkt ' || id, NULL FROM products ON CONFLICT DO NOTHING;
INSERT INTO product_categories SELECT p.id, c.id FROM products p JOIN categories c ON p.id % 11 = c.id % 11 ON CONFLICT DO NOTHING;
INSERT INTO product_images (product_id, place, preview) SELECT id, 1, decode(repeat('c0ffee', id::int % 50), 'hex') FROM products;
INSERT INTO product_variants (product_id, sku, options) SELECT id, 'SKU' || id || '-' || nextval('product_variants_id_seq'), '{"size": "M"}' FROM products;
INSERT INTO variant_prices SELECT id, 'EUR', '[2024-01-01,2025-01-01)', id * 2.5 FROM product_variants ON CONFLICT DO NOTHING;
INSERT INTO product_reviews SELECT p.id, c.id, 1 + p.id % 5, 'Review' FROM products p JOIN customers c ON p.id % 13 = c.id % 13 ON CONFLICT DO NOTHING;
INSERT INTO product_questions (product_id, question) SELECT id, 'Why ' || id || '?' FROM products WHERE id % 4 = 0;
INSERT INTO product_relations SELECT id, id + 1, 0.5 FROM products WHERE id + 1 IN (SELECT id FROM products) ON CONFLICT DO NOTHING;
INSERT INTO attributes VALUES ('color', 'Color', 'text'), ('watts', 'Power', 'number') ON CONFLICT DO NOTHING;
INSERT INTO attribute_values SELECT id, 'color', 'c' || id % 7 FROM products ON CONFLICT DO NOTHING;
INSERT INTO supplier_products SELECT 1 + v.id % 5, v.id, v.id, 3 FROM product_variants v ON CONFLICT DO NOTHING;
INSERT INTO purchase_orders (supplier_id, note) SELECT 1 + i % 5, NULL FROM generate_series(1, 6) i;
INSERT INTO purchase_order_lines SELECT id, l, l, l, 1.5 FROM purchase_orders, generate_series(1, 4) l ON CONFLICT DO NOTHING;
INSERT INTO warehouses VALUES (1, 'North', '08:00', 'UTC'), (2, 'South', '24:00', NULL) ON CONFLICT DO NOTHING;
INSERT INTO stock SELECT 1 + id % 2, id, id % 40 FROM product_variants ON CONFLICT DO NOTHING;
INSERT INTO stock_reservations (warehouse_id, variant_id, quantity) SELECT warehouse_id, variant_id, 1 FROM stock WHERE variant_id % 6 = 0;
INSERT INTO carts (customer_id) SELECT id FROM customers WHERE id % 3 = 0;
INSERT INTO cart_items SELECT c.id, v, 1 + v FROM carts c, generate_series(1, 3) v ON CONFLICT DO NOTHING;
INSERT INTO wishlists (customer_id, name) SELECT id, 'List' FROM customers WHERE id % 4 = 0;
INSERT INTO wishlist_items SELECT w.id, p FROM wishlists w, generate_series(1, 3) p ON CONFLICT DO NOTHING;
INSERT INTO orders (id, placed_on, customer_id, total, note, extra)
    SELECT (SELECT coalesce(max(id), 0) FROM orders) + i, date '2024-01-01' + i, (SELECT min(id) FROM customers) + i % 50, i * 3.5,
           nullif('note ' || i % 5, 'note 0'), jsonb_build_object('gift', i % 2 = 0) FROM generate_series(1, 120) i;
INSERT INTO order_lines SELECT id, l, l, l, 2.5 FROM orders, generate_series(1, 3) l ON CONFLICT DO NOTHING;
INSERT INTO payments (order_id, paid, raw) SELECT id, total, '{"a": 1,  "a": 2}' FROM orders WHERE id % 2 = 0;
INSERT INTO refunds (payment_id, paid, reason) SELECT id, 1, 'late' FROM payments WHERE order_id % 8 = 0;
INSERT INTO shipments SELECT (SELECT coalesce(max(id), 0) FROM shipments) + id, ('{de,fr,us,ca}'::text[])[1 + id % 4], id, now(), ARRAY['T' || id]
    FROM orders WHERE id % 3 = 0;
INSERT INTO shipment_items SELECT id, 1, 2 FROM shipments ON CONFLICT DO NOTHING;
INSERT INTO returns (order_id, reason) SELECT id, 'too small' FROM orders WHERE id % 20 = 0;
INSERT INTO return_lines SELECT id, 1, 1 FROM returns ON CONFLICT DO NOTHING;
INSERT INTO invoices (year, number, order_id, total) SELECT 2024, nextval('invoices_id_seq'), id, '12.50' FROM orders WHERE id % 2 = 1;
INSERT INTO invoice_lines SELECT id, 1, 'text', 12.5 FROM invoices ON CONFLICT DO NOTHING;
INSERT INTO coupons SELECT 'C' || i, i, tstzrange('2024-01-01 00:00+00', NULL), i FROM generate_series(1, 9) i ON CONFLICT DO NOTHING;
INSERT INTO coupon_uses SELECT 'C' || 1 + id % 9, id FROM orders WHERE id % 5 = 0 ON CONFLICT DO NOTHING;
INSERT INTO promotions (name, rules, days, hours) SELECT 'P' || i, '[]', ARRAY[i, NULL], int4range(i, i + 3) FROM generate_series(1, 4) i;
INSERT INTO gift_cards SELECT 'G' || i, i * 10 FROM generate_series(1, 9) i ON CONFLICT DO NOTHING;
INSERT INTO gift_card_moves (code, change) SELECT code, -1 FROM gift_cards;
INSERT INTO loyalty_accounts SELECT id, id FROM customers WHERE id % 2 = 0 ON CONFLICT DO NOTHING;
INSERT INTO loyalty_moves (customer_id, change) SELECT customer_id, 5 FROM loyalty_accounts;
INSERT INTO tickets (customer_id, priority, subject, waits) SELECT id, 'high', 'Help', '1 mon 2 days 03:00' FROM customers WHERE id % 7 = 0;
INSERT INTO ticket_messages (ticket_id, body) SELECT id, repeat('please ', 1000) FROM tickets;
INSERT INTO newsletters VALUES (1, 'News') ON CONFLICT DO NOTHING;
INSERT INTO newsletter_subscriptions SELECT 1, email FROM customers ON CONFLICT DO NOTHING;
INSERT INTO jobs (kind, payload) SELECT 'mail', jsonb_build_object('to', i) FROM generate_series(1, 40) i;
INSERT INTO page_views SELECT '/p/' || i % 5, timestamp '2024-01-01' + i % 5 * interval '1 second', NULL, 1.5 FROM generate_series(1, 50) i;
INSERT INTO webhooks (body) SELECT 'hook ' || i FROM generate_series(1, 5) i;
INSERT INTO rate_limits SELECT '10.0.0.1'::inet + i, i FROM generate_series(1, 5) i ON CONFLICT DO NOTHING;
REFRESH MATERIALIZED VIEW sales;
