package lakegate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.sql.Connection;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** Tables of unusual shapes. */
class ShapesTest {
  private Connection connection;
  private Statement statement;

  @BeforeEach
  void connect() throws SQLException {
    connection = Server.connect();
    statement = connection.createStatement();
  }

  @AfterEach
  void close() throws SQLException {
    statement.close();
    connection.close();
  }

  @Test
  void noRows() throws SQLException {
    try (ResultSet rows = statement.executeQuery("select * from shapes.nothing")) {
      assertFalse(rows.next());
    }
  }

  @Test
  void oneRow() throws SQLException {
    try (ResultSet rows = statement.executeQuery("select * from shapes.one")) {
      assertTrue(rows.next());
      assertEquals(1, rows.getLong(1));
      assertFalse(rows.next());
    }
  }

  @Test
  void aMillionRows() throws SQLException {
    try (ResultSet rows = statement.executeQuery("select n, word, half from shapes.million order by n")) {
      for (long at = 0; at < 1_000_000; at++) {
        assertTrue(rows.next());
        if (rows.getLong(1) != at || rows.getDouble(3) != at / 2.0) {
          throw new AssertionError("row " + at + " is " + rows.getLong(1));
        }
      }
      assertFalse(rows.next());
    }
  }

  @Test
  void fourThousandColumns() throws SQLException {
    try (ResultSet rows = statement.executeQuery("select * from shapes.wide order by c1 nulls last")) {
      assertEquals(4000, rows.getMetaData().getColumnCount());
      assertTrue(rows.next());
      for (int at = 0; at < 4000; at++) {
        assertEquals(at, rows.getInt(at + 1));
      }
      assertTrue(rows.next());
      assertEquals(0, rows.getInt(4000));
      assertTrue(rows.wasNull());
    }
  }

  @Test
  void aCellOfTwentyMegabytes() throws SQLException {
    try (ResultSet rows = statement.executeQuery("select cell from shapes.giant order by id")) {
      assertTrue(rows.next());
      assertEquals(20 << 20, rows.getString(1).length());
      assertTrue(rows.next());
      assertEquals("small", rows.getString(1));
    }
  }
}
