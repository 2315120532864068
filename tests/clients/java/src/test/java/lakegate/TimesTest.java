package lakegate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.sql.Connection;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.time.Instant;
import java.time.LocalDateTime;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.TimeZone;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** How times are read so that they are right, and where the driver shifts them. */
class TimesTest {
  private static final LocalDateTime MOMENT = LocalDateTime.parse("2024-02-29T12:34:56.789012");
  private static final LocalDateTime MISSING_IN_NEW_YORK = LocalDateTime.parse("2013-03-10T02:30:00");
  private final TimeZone zone = TimeZone.getDefault();

  @AfterEach
  void restore() {
    TimeZone.setDefault(zone);
  }

  interface Reading {
    void of(ResultSet row) throws SQLException;
  }

  private static void row(int id, Reading reading) throws SQLException {
    try (Connection connection = Server.connect();
        Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery("select instant, local from types.matrix where id = " + id)) {
      rows.next();
      reading.of(rows);
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"UTC", "America/New_York", "Asia/Kathmandu"})
  void theClassesOfJavaTimeAreRightInEveryZone(String zone) throws SQLException {
    TimeZone.setDefault(TimeZone.getTimeZone(zone));
    row(1, row -> {
      assertEquals(MOMENT, row.getObject(2, LocalDateTime.class));
      assertEquals(MOMENT.atOffset(ZoneOffset.UTC), row.getObject(1, OffsetDateTime.class));
      assertEquals(MOMENT.toInstant(ZoneOffset.UTC), row.getObject(1, Instant.class));
      assertEquals("2024-02-29 12:34:56.789012", row.getString(1));
      assertEquals("2024-02-29 12:34:56.789012", row.getString(2));
    });
    row(7, row -> {
      assertEquals(MISSING_IN_NEW_YORK, row.getObject(2, LocalDateTime.class));
      assertEquals(MISSING_IN_NEW_YORK.toInstant(ZoneOffset.UTC), row.getObject(1, Instant.class));
    });
  }

  @Test
  void timestampsAreRightInUtc() throws SQLException {
    row(1, row -> {
      assertEquals(MOMENT.toInstant(ZoneOffset.UTC), row.getTimestamp(1).toInstant());
      assertEquals(Timestamp.valueOf(MOMENT), row.getTimestamp(2));
    });
  }

  @Test
  void anInstantIsNoObjectWithoutAClass() throws SQLException {
    row(1, row -> assertThrows(RuntimeException.class, () -> row.getObject(1)));
  }

  /** For tools that read every cell so. */
  @Test
  void anInstantCastToATimeWithoutZoneIsAnObject() throws SQLException {
    String sql = "select arrow_cast(instant, 'Timestamp(Microsecond, None)') from types.matrix where id = 1";
    try (Connection connection = Server.connect();
        Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery(sql)) {
      rows.next();
      assertEquals(Timestamp.valueOf(MOMENT), rows.getObject(1));
    }
  }

  /** The reason for -Duser.timezone=UTC on the page; when this fails, a driver has been mended and the page can say so. */
  @Test
  void elsewhereTheDriverShiftsTimestamps() throws SQLException {
    TimeZone.setDefault(TimeZone.getTimeZone("America/New_York"));
    row(1, row -> assertNotEquals(Timestamp.valueOf(MOMENT), row.getTimestamp(2)));
  }
}
