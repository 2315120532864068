package lakegate;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.util.Map;
import java.util.stream.Collectors;

/** The server under test, and connections to it as people make them. */
final class Server {
  static final String HOST = required("LAKEGATE_HOST");
  static final String PORT = required("LAKEGATE_PORT");
  /** Where the same tables are behind a slow line. */
  static final String SLOW_PORT = required("LAKEGATE_SLOW_PORT");
  static final String DRIVER = System.getProperty("driver.version");

  private Server() {}

  static String required(String variable) {
    String value = System.getenv(variable);
    if (value == null) {
      throw new IllegalStateException(variable + " is not set; run this through `make test-clients`");
    }
    return value;
  }

  /** The address with connection properties, the first of which switches encryption off. */
  static String url(Map<String, String> properties) {
    String more = properties.entrySet().stream()
        .map(entry -> "&" + entry.getKey() + "=" + entry.getValue())
        .collect(Collectors.joining());
    return "jdbc:arrow-flight-sql://" + HOST + ":" + PORT + "/?useEncryption=false" + more;
  }

  static Connection connectSlowly(String more) throws SQLException {
    return DriverManager.getConnection(
        "jdbc:arrow-flight-sql://" + HOST + ":" + SLOW_PORT + "/?useEncryption=false" + more);
  }

  static Connection connect() throws SQLException {
    return connect(Map.of());
  }

  static Connection connect(Map<String, String> properties) throws SQLException {
    return DriverManager.getConnection(url(properties));
  }
}
