package lakegate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTimeoutPreemptively;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The ways people connect. */
class ConnectTest {
  static long one(Connection connection) throws SQLException {
    try (Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery("select 1 as one")) {
      assertTrue(rows.next());
      return rows.getLong("one");
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "&user=anybody&password=pass:word", "&token=abc", "&threadPoolSize=2",
      "&lakegate-codec=none", "&useServerPrepStmts=true&anything=else"})
  void aUrlIsEnough(String more) throws SQLException {
    try (Connection connection = DriverManager.getConnection(Server.url(Map.of()) + more)) {
      assertEquals(1, one(connection));
    }
  }

  @Test
  void toolsGiveUserAndPasswordApart() throws SQLException {
    Properties properties = new Properties();
    properties.put("user", "anybody");
    properties.put("password", "secret");
    properties.put("useEncryption", "false");
    String url = "jdbc:arrow-flight-sql://" + Server.HOST + ":" + Server.PORT;
    try (Connection connection = DriverManager.getConnection(url, properties)) {
      assertTrue(connection.isValid(5));
      assertEquals(1, one(connection));
    }
  }

  @Test
  void theOlderNameOfTheProtocolIsKnown() throws SQLException {
    String url = "jdbc:arrow-flight://" + Server.HOST + ":" + Server.PORT + "/?useEncryption=false";
    try (Connection connection = DriverManager.getConnection(url)) {
      assertEquals(1, one(connection));
    }
  }

  /** The driver closes the channel, then asks the server over it to close the session: its own mistake, after all is done. */
  @Test
  void aCatalogMayBeNamedAndClosingIsAnErrorOfTheDriver() throws SQLException {
    Connection connection = Server.connect(Map.of("catalog", "lakegate"));
    assertEquals(1, one(connection));
    SQLException error = assertThrows(SQLException.class, connection::close);
    assertTrue(chain(error).contains("Channel shutdown invoked"), chain(error));
  }

  @Test
  void aCatalogThatIsNotThereIsAnError() {
    assertThrows(SQLException.class, () -> Server.connect(Map.of("catalog", "elsewhere")).close());
  }

  @Test
  void whatTheDriverWouldReadWronglyIsRefused() {
    for (Map.Entry<String, String> asked :
        Map.of("lakegate-dictionaries", "on", "lakegate-precision", "float16").entrySet()) {
      SQLException error = assertThrows(SQLException.class, () -> {
        try (Connection connection = Server.connect(Map.of(asked.getKey(), asked.getValue()))) {
          one(connection);
        }
      });
      assertTrue(chain(error).contains(asked.getKey()), chain(error));
    }
  }

  @Test
  void whatTheDriverCannotUnpackIsAnErrorAndNoWrongData() {
    assertTimeoutPreemptively(Duration.ofSeconds(30), () -> {
      // Closing what has failed fails too.
      Exception error = assertThrows(Exception.class, () -> {
        try (Connection connection = Server.connect(Map.of("lakegate-codec", "zstd"));
            Statement statement = connection.createStatement();
            ResultSet rows = statement.executeQuery("select n from shapes.million")) {
          rows.next();
        }
      });
      assertTrue(chain(error).contains("arrow-compression"), chain(error));
    });
  }

  /** Java's gRPC offers gzip, which Arrow's reader fails on: rows come plain, whatever the line's settings say for others. */
  @ParameterizedTest
  @ValueSource(strings = {"", "&lakegate-codec=none", "&lakegate-codec=auto", "&lakegate-dictionaries=off",
      "&lakegate-precision=full"})
  void rowsComeOverASlowLine(String more) throws SQLException {
    try (Connection connection = Server.connectSlowly(more);
        Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery("select n, word from shapes.million where n < 100000 order by n")) {
      for (long at = 0; at < 100_000; at++) {
        assertTrue(rows.next());
        if (rows.getLong(1) != at || !rows.getString(2).equals(at % 2 == 0 ? "even" : "odd")) {
          throw new AssertionError("row " + at + " is " + rows.getLong(1) + " " + rows.getString(2));
        }
      }
      assertFalse(rows.next());
    }
  }

  @Test
  void shorterNumbersAreForWhoAsks() throws SQLException {
    try (Connection connection = Server.connect(Map.of("lakegate-precision", "float32"));
        Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery("select cast(1 as double) / 3 as third")) {
      assertTrue(rows.next());
      assertEquals(1.0f / 3, rows.getDouble(1));
    }
  }

  @Test
  void encryptionIsWhatTheDriverExpectsUnlessToldOtherwise() {
    String url = "jdbc:arrow-flight-sql://" + Server.HOST + ":" + Server.PORT;
    assertTimeoutPreemptively(Duration.ofSeconds(60), () ->
        assertThrows(SQLException.class, () -> one(DriverManager.getConnection(url))));
  }

  static String chain(Throwable error) {
    StringBuilder text = new StringBuilder();
    for (Throwable cause = error; cause != null; cause = cause.getCause()) {
      text.append(cause).append('\n');
    }
    return text.toString();
  }
}
