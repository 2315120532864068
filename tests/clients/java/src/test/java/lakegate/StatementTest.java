package lakegate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTimeoutPreemptively;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.Date;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.time.Duration;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** Statements: parameters, batches, several at once, errors, cancelling. */
class StatementTest {
  private Connection connection;

  @BeforeEach
  void connect() throws SQLException {
    connection = Server.connect();
  }

  @AfterEach
  void close() throws SQLException {
    connection.close();
  }

  interface Binding {
    void set(PreparedStatement statement) throws SQLException;
  }

  /** The number of the row that a condition with one parameter finds. */
  private int found(String condition, Binding value) throws SQLException {
    String sql = "select id from types.matrix where " + condition + " order by id";
    try (PreparedStatement statement = connection.prepareStatement(sql)) {
      assertEquals(1, statement.getParameterMetaData().getParameterCount());
      value.set(statement);
      try (ResultSet rows = statement.executeQuery()) {
        return rows.next() ? rows.getInt(1) : 0;
      }
    }
  }

  @Test
  void parametersOfEveryKindAreBound() throws SQLException {
    assertEquals(2, found("flag = ?", s -> s.setBoolean(1, false)));
    assertEquals(3, found("small = ?", s -> s.setShort(1, Short.MAX_VALUE)));
    assertEquals(2, found("whole = ?", s -> s.setInt(1, Integer.MIN_VALUE)));
    assertEquals(3, found("large = ?", s -> s.setLong(1, Long.MAX_VALUE)));
    assertEquals(1, found("single = ?", s -> s.setFloat(1, 1.5f)));
    assertEquals(1, found("number = ?", s -> s.setDouble(1, 0.1)));
    assertEquals(1, found("money = ?", s -> s.setBigDecimal(1, new BigDecimal("1.25"))));
    assertEquals(4, found("text = ?", s -> s.setString(1, "Zoë’s “x” 漢字 🎉")));
    assertEquals(3, found("raw = ?", s -> s.setBytes(1, new byte[] {0})));
    assertEquals(5, found("day = ?", s -> s.setDate(1, Date.valueOf("1969-12-31"))));
    assertEquals(4, found("local = ?", s -> s.setTimestamp(1, Timestamp.valueOf("1970-01-01 00:00:00"))));
  }

  @Test
  void aParameterMayBeNull() throws SQLException {
    assertEquals(1, found("coalesce(?, whole) = 7", s -> s.setNull(1, Types.INTEGER)));
    try (PreparedStatement statement = connection.prepareStatement("select ? as nothing")) {
      statement.setNull(1, Types.VARCHAR);
      try (ResultSet rows = statement.executeQuery()) {
        assertTrue(rows.next());
        assertNull(rows.getObject("nothing"));
      }
    }
  }

  @Test
  void aPreparedStatementRunsAgainWithOtherValues() throws SQLException {
    try (PreparedStatement statement =
        connection.prepareStatement("select text from types.matrix where id between ? and $2 order by id".replace("$2", "?"))) {
      for (int first = 1; first <= 3; first++) {
        statement.setInt(1, first);
        statement.setInt(2, first);
        try (ResultSet rows = statement.executeQuery()) {
          assertTrue(rows.next());
          assertEquals(new String[] {"plain", "", " "}[first - 1], rows.getString(1));
        }
      }
    }
  }

  @Test
  void twoResultsOfAConnectionAreReadInTurns() throws SQLException {
    try (Statement one = connection.createStatement();
        Statement other = connection.createStatement();
        ResultSet left = one.executeQuery("select n from shapes.million order by n");
        ResultSet right = other.executeQuery("select n from shapes.million order by n desc")) {
      for (int at = 0; at < 50_000; at++) {
        assertTrue(left.next() && right.next());
        assertEquals(at, left.getLong(1));
        assertEquals(999_999 - at, right.getLong(1));
      }
    }
  }

  @Test
  void aMistakeIsTold() {
    for (String[] pair : new String[][] {
        {"select no_such_column from types.matrix", "no_such_column"},
        {"select * from types.no_such_table", "no_such_table"},
        {"selec 1", "selec"},
        {"select 1; select 2", "one"}}) {
      SQLException error = assertThrows(SQLException.class, () -> {
        try (Statement statement = connection.createStatement()) {
          statement.executeQuery(pair[0]).close();
        }
      });
      assertTrue(ConnectTest.chain(error).contains(pair[1]), ConnectTest.chain(error));
    }
    assertTimeoutPreemptively(Duration.ofSeconds(10), () -> ConnectTest.one(connection));
  }

  @Test
  void anErrorInTheMiddleOfAResultIsAnErrorAndNotItsEnd() throws SQLException {
    String sql = "select cast(case when n = 900000 then 'x' else '1' end as int) as n from shapes.million";
    try (Statement statement = connection.createStatement()) {
      assertThrows(Exception.class, () -> {
        try (ResultSet rows = statement.executeQuery(sql)) {
          while (rows.next()) {
            rows.getInt(1);
          }
        }
      });
    }
    assertEquals(1, ConnectTest.one(connection));
  }

  /** The statement would take days; it has to end soon after it is cancelled. */
  @Test
  void cancelEndsAStatement() {
    String sql = "select count(*) from shapes.million a, shapes.million b where a.half + b.half < 0";
    assertTimeoutPreemptively(Duration.ofSeconds(60), () -> {
      try (Statement statement = connection.createStatement()) {
        CountDownLatch started = new CountDownLatch(1);
        AtomicReference<Throwable> end = new AtomicReference<>();
        Thread reader = new Thread(() -> {
          started.countDown();
          try (ResultSet rows = statement.executeQuery(sql)) {
            rows.next();
            end.set(new AssertionError("the statement came to its end"));
          } catch (Exception expected) {
            end.set(expected);
          }
        });
        reader.start();
        started.await();
        // There is nothing to cancel before the statement runs, and no way to see that it does.
        while (reader.isAlive()) {
          statement.cancel();
          reader.join(200);
        }
        assertTrue(end.get() instanceof Exception, String.valueOf(end.get()));
      }
    });
    assertTimeoutPreemptively(Duration.ofSeconds(10), () -> {
      try (Connection other = Server.connect()) {
        assertEquals(1, ConnectTest.one(other));
      }
    });
  }

  @Test
  void aTimeoutOfTheClientEndsAStatement() {
    String sql = "select count(*) from shapes.million a, shapes.million b where a.half + b.half < 0";
    assertTimeoutPreemptively(Duration.ofSeconds(60), () -> {
      try (Statement statement = connection.createStatement()) {
        statement.setQueryTimeout(1);
        assertThrows(Exception.class, () -> {
          try (ResultSet rows = statement.executeQuery(sql)) {
            rows.next();
          }
        });
      }
    });
  }
}
