package lakegate;

import java.math.BigDecimal;
import java.sql.Array;
import java.sql.SQLException;
import java.sql.Struct;
import java.sql.Timestamp;
import java.time.Instant;
import java.time.LocalDateTime;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;

/** What the driver gives, as the text that expected.json has for it. */
final class Text {
  private static final DateTimeFormatter MOMENT = DateTimeFormatter.ofPattern("uuuu-MM-dd'T'HH:mm:ss.SSSSSS");

  private Text() {}

  static String of(Object value) throws SQLException {
    if (value == null) {
      return "null";
    } else if (value instanceof Float || value instanceof Double) {
      return bits(((Number) value).doubleValue());
    } else if (value instanceof BigDecimal number) {
      return number.toPlainString();
    } else if (value instanceof Number || value instanceof Boolean) {
      return value.toString();
    } else if (value instanceof byte[] bytes) {
      return "x'" + HexFormat.of().formatHex(bytes) + "'";
    } else if (value instanceof Map<?, ?> map) {
      return struct(map);
    } else if (value instanceof List<?> list) {
      return list(list);
    } else if (value instanceof Array array) {
      return list(List.of(new Object[] {array.getArray()}).get(0));
    } else if (value instanceof Object[] items) {
      return list(java.util.Arrays.asList(items));
    } else if (value instanceof Struct struct) {
      return list(java.util.Arrays.asList(struct.getAttributes()));
    } else {
      return moment(value);
    }
  }

  private static String moment(Object value) {
    if (value instanceof java.sql.Date date) {
      return date.toLocalDate().toString();
    } else if (value instanceof Timestamp timestamp) {
      return MOMENT.format(timestamp.toLocalDateTime());
    } else if (value instanceof LocalDateTime local) {
      return MOMENT.format(local);
    } else if (value instanceof OffsetDateTime moment) {
      return MOMENT.format(moment.withOffsetSameInstant(ZoneOffset.UTC)) + "Z";
    } else if (value instanceof ZonedDateTime moment) {
      return MOMENT.format(moment.withZoneSameInstant(ZoneOffset.UTC)) + "Z";
    } else if (value instanceof Instant instant) {
      return MOMENT.format(instant.atOffset(ZoneOffset.UTC)) + "Z";
    } else {
      // Text is a class of Hadoop's heritage that Arrow has for strings within lists.
      return '"' + value.toString().replace("\\", "\\\\").replace("\"", "\\\"") + '"';
    }
  }

  private static String bits(double value) {
    return Double.isNaN(value) ? "nan" : "f" + HexFormat.of().toHexDigits(Double.doubleToRawLongBits(value));
  }

  private static String list(Object items) throws SQLException {
    List<String> texts = new ArrayList<>();
    for (Object item : items instanceof Object[] array ? java.util.Arrays.asList(array) : (List<?>) items) {
      texts.add(of(item));
    }
    return "[" + String.join(", ", texts) + "]";
  }

  private static String struct(Map<?, ?> map) throws SQLException {
    List<String> texts = new ArrayList<>();
    for (Map.Entry<?, ?> entry : map.entrySet()) {
      texts.add(entry.getKey() + ": " + of(entry.getValue()));
    }
    return "{" + String.join(", ", texts) + "}";
  }
}
