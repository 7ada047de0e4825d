-- The web shop on MySQL and MariaDB. Foreign keys do not cascade: what they delete is not in every server's log.
CREATE TABLE countries (code CHAR(2) PRIMARY KEY, name VARCHAR(60) NOT NULL, in_union BOOLEAN NOT NULL DEFAULT FALSE);
CREATE TABLE currencies (code CHAR(3) CHARACTER SET ascii PRIMARY KEY, digits TINYINT UNSIGNED NOT NULL DEFAULT 2);
CREATE TABLE languages (code VARCHAR(5) PRIMARY KEY, name VARCHAR(40) CHARACTER SET latin1);
CREATE TABLE settings (name VARCHAR(60) PRIMARY KEY, value JSON NOT NULL);
CREATE TABLE exchange_rates (currency CHAR(3), day DATE, rate DOUBLE NOT NULL, PRIMARY KEY (currency, day));
CREATE TABLE tax_classes (id SMALLINT PRIMARY KEY, name VARCHAR(20) NOT NULL UNIQUE);
CREATE TABLE tax_rates (tax_class_id SMALLINT, country CHAR(2), valid_from DATE, rate DECIMAL(5,4) NOT NULL,
    PRIMARY KEY (tax_class_id, country, valid_from), FOREIGN KEY (country) REFERENCES countries (code));
CREATE TABLE customers (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, public_id BINARY(16) NOT NULL UNIQUE, email VARCHAR(190) NOT NULL,
    name VARCHAR(100), born DATE, preferences JSON, flags SET('mail', 'ads', 'vip') NOT NULL DEFAULT '',
    email_key VARCHAR(190) GENERATED ALWAYS AS (LOWER(email)) STORED, initial CHAR(1) AS (LEFT(name, 1)) VIRTUAL,
    created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3), KEY by_email (email_key));
CREATE TABLE customer_groups (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(40) NOT NULL UNIQUE, discount DECIMAL(4,2), CHECK (discount BETWEEN 0 AND 50));
CREATE TABLE customer_group_members (customer_id BIGINT UNSIGNED, group_id INT, since DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (customer_id, group_id));
CREATE TABLE addresses (id CHAR(36) CHARACTER SET ascii PRIMARY KEY, customer_id BIGINT UNSIGNED NOT NULL, kind ENUM('billing', 'shipping') NOT NULL, street TEXT, country CHAR(2));
CREATE TABLE sessions (token BINARY(16) PRIMARY KEY, customer_id BIGINT UNSIGNED, data BLOB, expires_at DATETIME(6));
CREATE TABLE password_resets (customer_id BIGINT UNSIGNED PRIMARY KEY, hash VARBINARY(64) NOT NULL, valid TIME NOT NULL DEFAULT '01:00:00');
CREATE TABLE consents (customer_id BIGINT UNSIGNED, purpose VARCHAR(20), given BOOLEAN NOT NULL, PRIMARY KEY (customer_id, purpose));
CREATE TABLE brands (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(60) NOT NULL UNIQUE, logo MEDIUMBLOB);
CREATE TABLE categories (id INT AUTO_INCREMENT PRIMARY KEY, parent_id INT, name VARCHAR(60) NOT NULL, path VARCHAR(200), FOREIGN KEY (parent_id) REFERENCES categories (id));
CREATE TABLE suppliers (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(60), contact JSON);
CREATE TABLE products (id BIGINT AUTO_INCREMENT PRIMARY KEY, brand_id INT, tax_class_id SMALLINT, name VARCHAR(120) NOT NULL, description LONGTEXT,
    attributes JSON, price DECIMAL(12,2) NOT NULL, price_with_tax DECIMAL(14,4) GENERATED ALWAYS AS (price * 1.19) STORED,
    weight FLOAT, is_active BIT(1) NOT NULL DEFAULT b'1', updated_at TIMESTAMP NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    FULLTEXT KEY words (name), KEY of_brand (brand_id), FOREIGN KEY (brand_id) REFERENCES brands (id));
CREATE TABLE product_translations (product_id BIGINT, language VARCHAR(5), name VARCHAR(120) NOT NULL, PRIMARY KEY (product_id, language));
CREATE TABLE product_categories (product_id BIGINT, category_id INT, PRIMARY KEY (product_id, category_id));
CREATE TABLE product_images (id CHAR(36) PRIMARY KEY, product_id BIGINT NOT NULL, place TINYINT, preview BLOB);
CREATE TABLE product_variants (id BIGINT AUTO_INCREMENT PRIMARY KEY, product_id BIGINT NOT NULL, sku VARCHAR(20) NOT NULL UNIQUE, options JSON);
CREATE TABLE variant_prices (variant_id BIGINT, currency CHAR(3), valid_from DATE, price DECIMAL(12,2) NOT NULL, PRIMARY KEY (variant_id, currency, valid_from));
CREATE TABLE product_reviews (product_id BIGINT, customer_id BIGINT UNSIGNED, stars TINYINT UNSIGNED, body TEXT, PRIMARY KEY (product_id, customer_id), CHECK (stars BETWEEN 1 AND 5));
CREATE TABLE product_questions (id INT AUTO_INCREMENT PRIMARY KEY, product_id BIGINT, question TEXT, answer TEXT);
CREATE TABLE product_relations (product_id BIGINT, related_id BIGINT, weight FLOAT, PRIMARY KEY (product_id, related_id));
CREATE TABLE attributes (code VARCHAR(30) PRIMARY KEY, label VARCHAR(60), kind ENUM('text', 'number'));
CREATE TABLE attribute_values (product_id BIGINT, code VARCHAR(30), value VARCHAR(60), PRIMARY KEY (product_id, code));
CREATE TABLE supplier_products (supplier_id INT, variant_id BIGINT, cost DECIMAL(12,2), days MEDIUMINT, PRIMARY KEY (supplier_id, variant_id));
CREATE TABLE purchase_orders (id INT AUTO_INCREMENT PRIMARY KEY, supplier_id INT, ordered_on DATE NOT NULL, note TINYTEXT);
CREATE TABLE purchase_order_lines (purchase_order_id INT, line SMALLINT, variant_id BIGINT, quantity INT, cost DECIMAL(12,2), total DECIMAL(16,2) AS (quantity * cost) STORED, PRIMARY KEY (purchase_order_id, line));
CREATE TABLE warehouses (id SMALLINT PRIMARY KEY, name VARCHAR(40), opening TIME, zone VARCHAR(20));
CREATE TABLE stock (warehouse_id SMALLINT, variant_id BIGINT, quantity INT NOT NULL DEFAULT 0, PRIMARY KEY (warehouse_id, variant_id));
CREATE TABLE stock_ledger (id BIGINT AUTO_INCREMENT PRIMARY KEY, warehouse_id SMALLINT, variant_id BIGINT, quantity INT, at DATETIME(6) DEFAULT CURRENT_TIMESTAMP(6));
CREATE TABLE stock_reservations (id CHAR(36) PRIMARY KEY, warehouse_id SMALLINT, variant_id BIGINT, quantity INT, until DATETIME);
CREATE TRIGGER stock_noted AFTER INSERT ON stock FOR EACH ROW INSERT INTO stock_ledger (warehouse_id, variant_id, quantity) VALUES (NEW.warehouse_id, NEW.variant_id, NEW.quantity);
CREATE TRIGGER stock_moved AFTER UPDATE ON stock FOR EACH ROW INSERT INTO stock_ledger (warehouse_id, variant_id, quantity) VALUES (NEW.warehouse_id, NEW.variant_id, NEW.quantity - OLD.quantity);
CREATE TABLE carts (id CHAR(36) PRIMARY KEY, customer_id BIGINT UNSIGNED, created_at DATETIME DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE cart_items (cart_id CHAR(36), variant_id BIGINT, quantity INT NOT NULL, PRIMARY KEY (cart_id, variant_id));
CREATE TABLE wishlists (id INT AUTO_INCREMENT PRIMARY KEY, customer_id BIGINT UNSIGNED, name VARCHAR(40));
CREATE TABLE wishlist_items (wishlist_id INT, product_id BIGINT, added_at TIMESTAMP NULL, PRIMARY KEY (wishlist_id, product_id));
CREATE TABLE orders (id BIGINT NOT NULL, placed_on DATE NOT NULL, customer_id BIGINT UNSIGNED, state ENUM('new', 'paid', 'packed', 'sent', 'done') NOT NULL DEFAULT 'new',
    total DECIMAL(12,2), currency CHAR(3) DEFAULT 'EUR', note VARCHAR(200), extra JSON, updated_at TIMESTAMP NULL DEFAULT NULL ON UPDATE CURRENT_TIMESTAMP,
    PRIMARY KEY (id, placed_on), KEY of_customer (customer_id)) PARTITION BY RANGE COLUMNS (placed_on) (
    PARTITION m01 VALUES LESS THAN ('2024-02-01'), PARTITION m02 VALUES LESS THAN ('2024-03-01'), PARTITION m03 VALUES LESS THAN ('2024-04-01'), PARTITION rest VALUES LESS THAN MAXVALUE);
CREATE TABLE order_lines (order_id BIGINT, line INT, variant_id BIGINT, quantity INT NOT NULL, price DECIMAL(12,2), total DECIMAL(20,2) AS (quantity * price) VIRTUAL, PRIMARY KEY (order_id, line));
CREATE TABLE order_states (id BIGINT AUTO_INCREMENT PRIMARY KEY, order_id BIGINT, old VARCHAR(20), new VARCHAR(20));
CREATE TRIGGER orders_noted AFTER UPDATE ON orders FOR EACH ROW INSERT INTO order_states (order_id, old, new) SELECT NEW.id, OLD.state, NEW.state FROM DUAL WHERE OLD.state <> NEW.state;
CREATE TABLE payments (id CHAR(36) PRIMARY KEY, order_id BIGINT NOT NULL, state ENUM('open', 'authorised', 'captured') NOT NULL DEFAULT 'open', paid DECIMAL(12,2), raw TEXT);
CREATE TABLE refunds (id INT AUTO_INCREMENT PRIMARY KEY, payment_id CHAR(36), paid DECIMAL(12,2), reason VARCHAR(60));
CREATE TABLE shipments (id BIGINT, region CHAR(2) NOT NULL, order_id BIGINT, sent_at DATETIME, PRIMARY KEY (id, region)) PARTITION BY LIST COLUMNS (region) (
    PARTITION eu VALUES IN ('de', 'fr', 'it'), PARTITION us VALUES IN ('us', 'ca'));
CREATE TABLE shipment_items (shipment_id BIGINT, line INT, quantity INT, PRIMARY KEY (shipment_id, line));
CREATE TABLE returns_received (id INT AUTO_INCREMENT PRIMARY KEY, order_id BIGINT, reason VARCHAR(60), received YEAR);
CREATE TABLE return_lines (return_id INT, line INT, quantity INT, PRIMARY KEY (return_id, line));
CREATE TABLE invoices (id INT AUTO_INCREMENT PRIMARY KEY, year SMALLINT NOT NULL, number INT NOT NULL, order_id BIGINT, total DECIMAL(12,2), UNIQUE (year, number));
CREATE TABLE invoice_lines (invoice_id INT, line INT, text VARCHAR(60), total DECIMAL(12,2), PRIMARY KEY (invoice_id, line));
CREATE TABLE coupons (code VARCHAR(20) PRIMARY KEY, percent DECIMAL(5,2), uses_left INT);
CREATE TABLE coupon_uses (code VARCHAR(20), order_id BIGINT, PRIMARY KEY (code, order_id));
CREATE TABLE promotions (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20), rules JSON, days SET('mo', 'tu', 'we'));
CREATE TABLE gift_cards (code CHAR(8) PRIMARY KEY, balance DECIMAL(12,2) NOT NULL) CHARACTER SET latin1;
CREATE TABLE gift_card_moves (id BIGINT AUTO_INCREMENT PRIMARY KEY, code CHAR(8), quantity DECIMAL(12,2));
CREATE TABLE loyalty_accounts (customer_id BIGINT UNSIGNED PRIMARY KEY, points INT NOT NULL DEFAULT 0);
CREATE TABLE loyalty_moves (id BIGINT AUTO_INCREMENT PRIMARY KEY, customer_id BIGINT UNSIGNED, points INT);
CREATE TABLE tickets (id INT AUTO_INCREMENT PRIMARY KEY, customer_id BIGINT UNSIGNED, priority ENUM('low', 'normal', 'high') DEFAULT 'normal', subject VARCHAR(100));
CREATE TABLE ticket_messages (id BIGINT AUTO_INCREMENT PRIMARY KEY, ticket_id INT, body MEDIUMTEXT) ENGINE=MyISAM;
CREATE TABLE newsletters (id SMALLINT PRIMARY KEY, name VARCHAR(20));
CREATE TABLE newsletter_subscriptions (newsletter_id SMALLINT, email VARCHAR(190), PRIMARY KEY (newsletter_id, email));
CREATE TABLE jobs (id BIGINT AUTO_INCREMENT PRIMARY KEY, kind VARCHAR(20), payload JSON, done BOOLEAN DEFAULT FALSE, tries TINYINT DEFAULT 0);
CREATE TABLE page_views (path VARCHAR(60), at DATETIME, customer_id BIGINT, milliseconds FLOAT);
CREATE TABLE audit_log (id BIGINT AUTO_INCREMENT PRIMARY KEY, at DATETIME(6) DEFAULT CURRENT_TIMESTAMP(6), relation VARCHAR(40), old TEXT, new TEXT);
CREATE TRIGGER customers_audited AFTER UPDATE ON customers FOR EACH ROW INSERT INTO audit_log (relation, old, new) VALUES ('customers', OLD.name, NEW.name);
CREATE VIEW open_orders AS SELECT id, customer_id, total FROM orders WHERE state IN ('new', 'paid');
CREATE TABLE numbers (i INT PRIMARY KEY);
INSERT INTO numbers VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9), (10);
INSERT INTO numbers SELECT a.i + 10 * b.i FROM numbers a, numbers b WHERE b.i < 10;
