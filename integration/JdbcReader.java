import java.sql.*;
import java.util.*;

/** Reads through PostgreSQL's JDBC driver what Metabase and DBeaver read through it; prints a line for each thing. */
public class JdbcReader {
    static void print(String what, ResultSet rows) throws SQLException {
        int width = rows.getMetaData().getColumnCount();
        int count = 0;
        while (rows.next()) {
            List<String> values = new ArrayList<>();
            for (int column = 1; column <= width; column++) values.add(String.valueOf(rows.getObject(column)));
            System.out.println(what + ": " + String.join(" | ", values));
            count++;
        }
        System.out.println(what + " rows: " + count);
    }

    public static void main(String[] arguments) throws Exception {
        try (Connection connection = DriverManager.getConnection(arguments[0], arguments[1], arguments[2])) {
            DatabaseMetaData known = connection.getMetaData();
            System.out.println("product: " + known.getDatabaseProductName() + " " + known.getDatabaseMajorVersion());
            print("catalogs", known.getCatalogs());
            print("schemas", known.getSchemas());
            print("tables", known.getTables(null, null, "%", new String[] {"TABLE", "VIEW"}));
            print("columns", known.getColumns(null, "public", "%", "%"));
            print("primary keys", known.getPrimaryKeys(null, "public", "orders"));
            print("imported keys", known.getImportedKeys(null, "public", "orders"));
            print("exported keys", known.getExportedKeys(null, "public", "orders"));
            print("indexes", known.getIndexInfo(null, "public", "orders", false, false));
            print("table types", known.getTableTypes());
            print("type info", known.getTypeInfo());
            print("procedures", known.getProcedures(null, null, "%"));
            print("functions", known.getFunctions(null, null, "%"));
            print("privileges", known.getTablePrivileges(null, "public", "%"));
            System.out.println("keywords: " + (known.getSQLKeywords().length() > 0));

            String query = "SELECT * FROM public.orders WHERE id >= ? ORDER BY id";
            try (PreparedStatement prepared = connection.prepareStatement(query)) {
                prepared.getParameterMetaData().getParameterCount();
                prepared.getMetaData().getColumnCount();
                for (int times = 0; times < 7; times++) { // from the fifth on in the binary format
                    prepared.setInt(1, 1);
                    try (ResultSet rows = prepared.executeQuery()) {
                        print("orders", rows);
                    }
                }
            }
            connection.setAutoCommit(false);
            try (PreparedStatement prepared = connection.prepareStatement("SELECT i FROM range(?) t(i)")) {
                prepared.setFetchSize(7);
                prepared.setLong(1, 100);
                try (ResultSet rows = prepared.executeQuery()) {
                    long sum = 0;
                    while (rows.next()) sum += rows.getLong(1);
                    System.out.println("sum: " + sum);
                }
            }
            connection.rollback();
            connection.setReadOnly(true);
            connection.setAutoCommit(true);
            try (Statement statement = connection.createStatement()) {
                statement.executeUpdate("DELETE FROM public.orders");
            } catch (SQLException error) {
                System.out.println("refused: " + error.getSQLState());
            }
            try (Statement statement = connection.createStatement()) {
                statement.setQueryTimeout(1);
                statement.executeQuery("SELECT count(*) FROM range(1000000000000)");
            } catch (SQLException error) {
                System.out.println("timeout: " + error.getSQLState());
            }
        }
    }
}
