package lakegate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.sql.Connection;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/** Every type a table can hold, at its extremes, through getObject. */
class MatrixTest {
  private final Expected expected;

  MatrixTest() throws Exception {
    expected = new Expected("jdbc");
  }

  @TestFactory
  Stream<DynamicTest> everyColumnIsAsExpected() {
    return expected.columns().stream().map(column -> DynamicTest.dynamicTest(column, () -> check(column)));
  }

  private void check(String column) throws SQLException {
    String sql = "select " + column + " from types.matrix order by id";
    if (expected.error(column).isPresent()) {
      Exception error = assertThrows(Exception.class, () -> read(sql));
      assertTrue(String.valueOf(error.getMessage()).contains(expected.error(column).get()), error::toString);
      return;
    }
    List<String> found = read(sql);
    assertEquals(expected.type(column), found.remove(0));
    assertEquals(expected.values(column), found);
  }

  /** The SQL type's name and its Java class, then each value. */
  private static List<String> read(String sql) throws SQLException {
    try (Connection connection = Server.connect();
        Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery(sql)) {
      List<String> found = new ArrayList<>();
      String kind = "never a value";
      while (rows.next()) {
        Object value = rows.getObject(1);
        kind = value == null || !kind.equals("never a value") ? kind : value.getClass().getSimpleName();
        found.add(Text.of(value));
      }
      found.add(0, rows.getMetaData().getColumnTypeName(1) + " " + kind);
      return found;
    }
  }

  @Test
  void allColumnsComeInOneRow() throws SQLException {
    try (Connection connection = Server.connect();
        Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery("select * from types.matrix order by id")) {
      assertEquals(expected.columns().size() + 1, rows.getMetaData().getColumnCount());
      int count = 0;
      while (rows.next()) {
        assertEquals(++count, rows.getInt("id"));
      }
      assertEquals(Expected.ROWS, count);
    }
  }
}
