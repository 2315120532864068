package lakegate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** The walk through DatabaseMetaData that DBeaver, DataGrip and Tableau do. */
class BrowseTest {
  private Connection connection;
  private DatabaseMetaData metadata;

  @BeforeEach
  void connect() throws SQLException {
    connection = Server.connect();
    metadata = connection.getMetaData();
  }

  @AfterEach
  void close() throws SQLException {
    connection.close();
  }

  private static List<String> texts(ResultSet rows, String column) throws SQLException {
    try (rows) {
      List<String> found = new ArrayList<>();
      while (rows.next()) {
        found.add(rows.getString(column));
      }
      return found;
    }
  }

  /** DBeaver opens a connection by asking for everything that takes no argument. */
  @Test
  void everyPropertyOfTheServerIsAnswered() throws ReflectiveOperationException {
    Map<String, String> failed = new TreeMap<>();
    int asked = 0;
    for (Method method : DatabaseMetaData.class.getMethods()) {
      if (method.getParameterCount() > 0 || method.getDeclaringClass() != DatabaseMetaData.class) {
        continue;
      }
      asked++;
      try {
        Object answer = method.invoke(metadata);
        if (answer instanceof ResultSet rows) {
          rows.close();
        }
      } catch (InvocationTargetException error) {
        failed.put(method.getName(), String.valueOf(error.getCause()));
      } catch (SQLException error) {
        failed.put(method.getName(), error.toString());
      }
    }
    assertTrue(asked > 100, "asked " + asked);
    assertEquals(Map.of(), failed);
  }

  @Test
  void theServerSaysWhoItIsAndHowItQuotes() throws SQLException {
    assertEquals("lakegate", metadata.getDatabaseProductName());
    assertFalse(metadata.getDatabaseProductVersion().isEmpty());
    assertEquals("\"", metadata.getIdentifierQuoteString());
    assertFalse(metadata.supportsTransactions());
    assertNotNull(metadata.getSQLKeywords());
  }

  @Test
  void catalogSchemasAndTablesAreFound() throws SQLException {
    assertEquals(List.of("lakegate"), texts(metadata.getCatalogs(), "TABLE_CAT"));
    List<String> schemas = texts(metadata.getSchemas(), "TABLE_SCHEM");
    assertTrue(schemas.containsAll(List.of("types", "shapes", "system")), schemas::toString);
    assertEquals(List.of("types"), texts(metadata.getSchemas("lakegate", "types"), "TABLE_SCHEM"));
    assertTrue(texts(metadata.getTableTypes(), "TABLE_TYPE").contains("TABLE"));
    for (String catalog : new String[] {null, "lakegate"}) {
      for (String[] types : new String[][] {null, {"TABLE"}, {"TABLE", "VIEW"}, {"BASE TABLE"}}) {
        ResultSet tables = metadata.getTables(catalog, "types", "%", types);
        assertEquals(List.of("beyond", "matrix"), texts(tables, "TABLE_NAME"));
      }
    }
    assertEquals(List.of(), texts(metadata.getTables(null, "types", "%", new String[] {"VIEW"}), "TABLE_NAME"));
    assertEquals(List.of(), texts(metadata.getTables("elsewhere", null, "%", null), "TABLE_NAME"));
  }

  @Test
  void columnsAreToldWithTheirTypes() throws SQLException {
    Map<String, String> types = new TreeMap<>();
    try (ResultSet columns = metadata.getColumns(null, "types", "matrix", "%")) {
      while (columns.next()) {
        assertEquals("YES", columns.getString("IS_NULLABLE"), columns.getString("COLUMN_NAME"));
        types.put(columns.getString("COLUMN_NAME"), columns.getString("TYPE_NAME"));
        if (columns.getString("COLUMN_NAME").equals("exact")) {
          assertEquals(38, columns.getInt("COLUMN_SIZE"));
          assertEquals(10, columns.getInt("DECIMAL_DIGITS"));
        }
      }
    }
    assertEquals("bigint", types.get("large"));
    assertEquals("decimal(38,10)", types.get("exact"));
    assertEquals("timestamp_ntz", types.get("local"));
    assertEquals(24, types.size());
    try (ResultSet one = metadata.getColumns("lakegate", "types", "matrix", "fl_g")) {
      assertEquals(List.of("flag"), texts(one, "COLUMN_NAME"));
    }
  }

  @Test
  void keysAreAskedForAndMayBeNone() throws SQLException {
    assertEquals(List.of(), texts(metadata.getPrimaryKeys(null, "types", "matrix"), "COLUMN_NAME"));
    assertEquals(List.of(), texts(metadata.getImportedKeys(null, "types", "matrix"), "FKCOLUMN_NAME"));
    assertEquals(List.of(), texts(metadata.getExportedKeys(null, "types", "matrix"), "FKCOLUMN_NAME"));
    ResultSet cross = metadata.getCrossReference(null, "types", "matrix", null, "types", "beyond");
    assertEquals(List.of(), texts(cross, "FKCOLUMN_NAME"));
    metadata.getIndexInfo(null, "types", "matrix", false, true).close();
    metadata.getProcedures(null, null, "%").close();
    metadata.getFunctions(null, null, "%").close();
  }

  @Test
  void theKeyOfATableIsTold() throws SQLException {
    assertEquals(List.of("id"), texts(metadata.getPrimaryKeys(null, "shapes", "keyed"), "COLUMN_NAME"));
  }
}
